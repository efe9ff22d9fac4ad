"""Commands that are imported when they are used: all of them are there, under their own names."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from edgepress.cli.lazy_commands import LazyCommands
from edgepress.cli.main import main


@pytest.mark.parametrize("group", [main, main.commands["export"]], ids=["root", "export"])
def test_every_name_leads_to_the_command_of_that_name(group: click.Group) -> None:
    assert isinstance(group.commands, LazyCommands)
    assert {name: command.name for name, command in group.commands.items()} == {name: name for name in group.commands}


def test_commands_can_be_added_and_removed() -> None:
    commands = LazyCommands({})
    group = click.Group("tools", commands=commands)
    group.add_command(click.Command("cut"))
    assert list(group.commands) == ["cut"]
    del commands["cut"]
    assert commands.get("cut") is None


def test_a_command_imports_no_other() -> None:
    script = (
        "import sys; from edgepress.cli.main import main; main.commands['diff'];"
        "print(*sorted(name for name in main.commands if f'edgepress.cli.{name}' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "diff\n"
