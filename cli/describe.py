"""`edgepress describe`: writes what an artifact is as a whole."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command
from .console import print_json
from .options import PATH, json_option, verbosity_options


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option("--license", metavar="SPDX", help="Licence of the original pipeline.  [default: as its README.md says]")
@json_option
@verbosity_options
def describe(artifact: Path, license: str | None, as_json: bool) -> None:  # noqa: A002  the option's name
    """Write artifact.json, a model card and a bill of materials into ARTIFACT.

    They are made from what its parts record: source, files, graphs, quantization, memory plan, results, and a status of
    each part. SHA256SUMS lists them.
    """
    from ..api.description import describe as describe_artifact

    description = describe_artifact(artifact, license)
    if as_json:
        print_json(description.model_dump(mode="json"))
        return
    for name, component in description.components.items():
        click.echo(f"{name}: {component.status}, {component.reason}")
    click.echo(f"Described in {artifact / 'artifact.json'}, with README.md and sbom.cdx.json.")
