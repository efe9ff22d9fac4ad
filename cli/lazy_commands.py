"""The commands of a group, each imported when it is used: one command does not wait for the libraries of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name, as groups of click hold them.

    Args:
        modules: The module of this package that defines a command, by the command's name.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = dict(modules)
        self._commands: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._commands:
            module = import_module(f".{self._modules[name]}", __package__)
            self._commands[name] = getattr(module, name.replace("-", "_"))
        return self._commands[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._modules[name] = command.callback.__module__ if command.callback else __name__
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._modules[name]
        self._commands.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)
