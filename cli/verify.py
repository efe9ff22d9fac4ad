"""`edgepress verify`: proves that an artifact is as it was published."""

from __future__ import annotations

from pathlib import Path

import click

from ..storage.layout import Artifact
from .command import Command, require_effect
from .console import print_json, show_progress
from .options import PATH, json_option, verbosity_options

FAILED = 1  # exit code


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--run/--no-run",
    default=True,
    show_default=True,
    help="Run the ONNX graphs on golden inputs, and compare their outputs with torch's at export.",
)
@click.option("--rehash", is_flag=True, help="Read all files again, even those that have not changed since.")
@click.option(
    "--public-key",
    type=PATH,
    metavar="FILE",
    help="Check the signature too, with a public key in PEM.",
)
@json_option
@verbosity_options
@click.pass_context
def verify(
    context: click.Context, /, artifact: Path, run: bool, rehash: bool, public_key: Path | None, as_json: bool
) -> None:
    """Compare every file of ARTIFACT with its size, header and SHA-256, and graphs with torch.

    Nothing may be missing, changed, added, or left of a model that was replaced. Exit code 1: something is. Hashes are
    remembered, so that files which have not changed are read once.
    """
    from ..api import verification
    from ..storage.recognition import is_artifact

    if public_key is not None:
        from ..api.signing import check_signature

        check_signature(artifact, public_key)
    if is_artifact(artifact):
        require_effect("--run", Artifact(artifact).has_onnx, "it has no ONNX graphs")
    with show_progress() as progress:
        report = verification.verify(artifact, run=run, rehash=rehash, progress=progress)
    if as_json:
        print_json(verification.to_dict(report))
    else:
        click.echo(str(report))
    context.exit(0 if report.passed else FAILED)
