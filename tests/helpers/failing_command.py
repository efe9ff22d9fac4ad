"""A root group like that of edgepress, with a command that does what a test wants."""

from __future__ import annotations

from collections.abc import Callable

import click

from edgepress.cli.command import Command
from edgepress.cli.main import RootGroup


def make_root(work: Callable[[], None], name: str = "work") -> click.Group:
    """Returns a group with one command, which calls a function."""

    @click.group(cls=RootGroup, name="edgepress")
    @click.option("--debug", is_flag=True)
    def root(debug: bool) -> None:
        pass

    root.command(name, cls=Command)(work)
    return root


def failing(error: BaseException, name: str = "work") -> click.Group:
    """Returns a group with one command, which fails."""

    def work() -> None:
        raise error

    return make_root(work, name)
