"""`edgepress clean`: removes unfinished work, caches and saved tracebacks."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command
from .console import print_json
from .options import PATH, json_option, verbosity_options


@click.command(cls=Command)
@click.argument("artifact", type=PATH, required=False)
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would be removed.")
@json_option
@verbosity_options
def clean(artifact: Path | None, dry_run: bool, as_json: bool) -> None:
    """Remove what runs leave behind; results are never touched.

    With ARTIFACT, its unfinished work, which then cannot be resumed. Without, that of all artifacts in artifacts/,
    cached images and scores, traced graphs and tracebacks in your home folder, and what a killed RKNN toolkit left.
    """
    from ..api import cleaning

    result = cleaning.clean(artifact, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "dry_run": result.dry_run,
                "bytes": result.bytes,
                "kinds": result.bytes_by_kind,
                "paths": [str(leftover.path) for leftover in result.leftovers],
            }
        )
    else:
        click.echo(str(result))
