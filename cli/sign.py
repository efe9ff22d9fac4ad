"""`edgepress sign`: signs an artifact with a private key."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command
from .options import PATH, verbosity_options


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--key",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Private key on an elliptic curve, PEM.",
)
@verbosity_options
def sign(artifact: Path, key: Path) -> None:
    """Sign ARTIFACT, offline: all of its published files by their SHA-256.

    Who has the public key checks it with verify --public-key. Describe the artifact first, since a signature covers its
    description.
    """
    from ..api import signing

    click.echo(f"Signed: {signing.sign(artifact, key)}")
