"""`edgepress kit` and `edgepress wheelhouse`: what installs an artifact on a board."""

from __future__ import annotations

from pathlib import Path

import click

from ..common.requirements import requires_extra
from .command import Command, accept_old_names
from .options import PATH, output_option, verbosity_options
from .parameter_types import NameChoice

PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--wheelhouse", type=PATH, metavar="DIR", help="Wheels to put into the kit: the board then needs no network."
)
@verbosity_options
@requires_extra("server")
def kit(artifact: Path, wheelhouse: Path | None) -> None:
    """Write what installs an artifact and its server on a board, into the artifact's folder kit.

    That are install.sh, a service for systemd, a configuration for supervisor, and a Containerfile.
    """
    from ..serving.board_kit import write_board_kit

    folder = write_board_kit(artifact, wheelhouse)
    click.echo(f"Written: {folder}. Copy {artifact} to the board, and run there: sudo sh kit/install.sh")


@accept_old_names({"--machine": "--platform"})
@click.command(cls=Command)
@click.option(
    "--platform", type=NameChoice(["aarch64", "x86_64"]), default="aarch64", show_default=True, help="The board's."
)
@click.option(
    "--python",
    "version",
    type=NameChoice(PYTHON_VERSIONS),
    default=PYTHON_VERSIONS[0],
    show_default=True,
    help="Version of its Python.",
)
@output_option("Where the wheels are written.", required=True)
@verbosity_options
@requires_extra("server")
def wheelhouse(platform: str, version: str, output: Path) -> None:
    """Download the wheels of edgepress and its server for a board, so that it needs no network."""
    from ..serving.wheelhouse import download_wheels

    names = download_wheels(output, platform, version)
    click.echo(f"{len(names)} wheels are in {output}")
