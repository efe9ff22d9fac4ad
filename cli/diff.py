"""`edgepress diff`: what differs between two artifacts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .command import Command
from .console import print_json
from .options import PATH, json_option, verbosity_options

DIFFERENT = 1  # exit code


@click.command(cls=Command)
@click.argument("first", type=PATH, metavar="A")
@click.argument("second", type=PATH, metavar="B")
@json_option
@verbosity_options
@click.pass_context
def diff(context: click.Context, /, first: Path, second: Path, as_json: bool) -> None:
    """Show what differs between the artifacts A and B: files, settings, versions, statuses and scores.

    It compares what they record, and reads no weights. Exit code 1: something differs.
    """
    from ..api.comparison import diff as compare

    comparison = compare(first, second)
    if as_json:
        print_json(asdict(comparison) | {"equal": comparison.is_equal})
    else:
        click.echo(str(comparison))
    context.exit(0 if comparison.is_equal else DIFFERENT)
