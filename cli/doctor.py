"""`edgepress doctor`: what this machine is, what it can run, and what is missing."""

from __future__ import annotations

from dataclasses import asdict

import click

from .command import Command
from .console import print_json
from .options import json_option, verbosity_options


@click.command(cls=Command)
@json_option
@verbosity_options
def doctor(as_json: bool) -> None:
    """Say what this machine is, which runtimes it has, how they compute here, and what is missing."""
    from ..api.diagnosis import diagnose

    diagnosis = diagnose()
    if not as_json:
        click.echo(str(diagnosis))
        return
    content = asdict(diagnosis) | {"machine": diagnosis.machine.model_dump(mode="json")}
    content["features"]["flags"] = sorted(diagnosis.features.flags)
    print_json(content)
