"""Hostile arguments for every command, generated from the options and arguments that it declares."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

LONG_NAME = "n" * 300
NUMBERS = ("abc", "0", "-1", "1.5", "1" + 30 * "0", "nan", "inf")
TEXTS = (" ", "a\nb", "-1", "\x1b[2J", "D\udce9", "ab=cd", "ab:cd", "http://localhost:1")
PATHS = (
    "absent", "absent/absent", "images", "recipe.yaml", "dangling", "loop", "/dev/zero", "pipe", LONG_NAME,
    f"absent/{LONG_NAME}", "empty", "empty.json", "binary", "new\nline", "recipe.yaml/x", "/proc/x", "artifact",
    "artifact/onnx", "~no-such-user/x",
)  # fmt: skip
SIZES = ("abc", "0x0", "1x1", "100000x100000", "64", "63x64")
VALUES: Mapping[str, Sequence[str]] = {  # by the type of the option
    "WholeNumber": NUMBERS,
    "Number": NUMBERS,
    "Seconds": NUMBERS,
    "ByteSize": (*NUMBERS, "0GiB", "0.0000001KB"),
    "TuneTime": (*NUMBERS, "99999"),
    "DeviceName": (*NUMBERS, *TEXTS, "cuda:x", "cuda:-1", "orin"),
    "ImageSize": SIZES,
    "NameChoice": ("abc",),
    "LocalPath": (*TEXTS, *PATHS),
    "BudgetText": (*NUMBERS, *TEXTS),
    "RecipeName": (*TEXTS, *PATHS),
    "Tuple": PATHS,
    "StringParamType": (*TEXTS, *PATHS, "name=absent", "transformer:absent", "absent@float32", "recipe.yaml:nan"),
}
GIVEN_TWICE = {
    "WholeNumber": "1",
    "Number": "1",
    "Seconds": "1",
    "ByteSize": "1GiB",
    "TuneTime": "off",
    "DeviceName": "cpu",
    "ImageSize": "64x64",
}


class HostileCase(NamedTuple):
    """A command with one hostile argument.

    Attributes:
        arguments: What follows `edgepress`.
        parameter: The option or argument that is hostile; None: the whole command.
        value: Its value; None: there is none to name.
    """

    arguments: tuple[str, ...]
    parameter: click.Parameter | None
    value: str | None


def find_commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by its path."""
    for name, command in group.commands.items():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from find_commands(command, (*prefix, name))


def make_cases(path: tuple[str, ...], command: click.Command, base: Sequence[str]) -> Iterator[HostileCase]:
    """Makes the cases of a command.

    Args:
        path: The command's path.
        command: The command.
        base: Valid arguments, arguments first, and then options with a value each.
    """
    yield HostileCase((*path, *base, "--no-such-option"), None, "--no-such-option")
    flags = [parameter for parameter in command.params if isinstance(parameter, click.Option) and parameter.is_flag]
    names = [(flag, name) for flag in flags for name in (flag.opts[-1], *flag.secondary_opts)]
    for (flag, first), (_, second) in itertools.combinations_with_replacement(names, 2):
        yield HostileCase((*path, *base, first, second), flag, None)
    for flag in flags:
        yield HostileCase((*path, *base, f"{flag.opts[-1]}=x"), flag, None)
    for parameter in command.params:
        if parameter not in flags:
            yield from _make_value_cases(path, command, base, parameter)


def _make_value_cases(
    path: tuple[str, ...], command: click.Command, base: Sequence[str], parameter: click.Parameter
) -> Iterator[HostileCase]:
    values = VALUES[type(parameter.type).__name__]  # a KeyError: a new type needs hostile values
    arguments = list(itertools.takewhile(lambda text: not text.startswith("-"), base))
    if isinstance(parameter, click.Option):
        yield from _make_option_cases((*path, *_without(base, parameter)), parameter, values)
        return
    options = base[len(arguments) :]
    position = [known for known in command.params if isinstance(known, click.Argument)].index(parameter)
    for value in values:
        given = [*arguments[:position], value, *arguments[position + 1 :]]
        yield HostileCase((*path, *options, "--", *given), parameter, value)
    if parameter.required:
        yield HostileCase((*path, *options, *arguments[:position]), parameter, None)


def _make_option_cases(rest: tuple[str, ...], option: click.Option, values: Sequence[str]) -> Iterator[HostileCase]:
    name = option.opts[-1]
    for value in values:
        given = [f"{name}={value}"] if option.nargs == 1 else [name, *[value] * option.nargs]
        yield HostileCase((*rest, *given), option, value)
    yield HostileCase((*rest, name), option, None)
    if option.required:
        yield HostileCase(rest, option, None)
    if not option.multiple:
        is_choice = isinstance(option.type, click.Choice)
        value = str(option.type.choices[0]) if is_choice else GIVEN_TWICE.get(type(option.type).__name__, "artifact")
        yield HostileCase((*rest, *[name, *[value] * option.nargs] * 2), option, None)


def _without(base: Sequence[str], option: click.Option) -> Sequence[str]:
    """Valid arguments without an option and its value."""
    position = next((index for index, text in enumerate(base) if text in option.opts), len(base))
    return (*base[:position], *base[position + 1 + option.nargs :])


def write_places(folder: Path) -> None:
    """Writes what the hostile paths lead to."""
    for name in ("empty", "images", "new\nline"):
        (folder / name).mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "empty.json").touch()
    (folder / "binary").write_bytes(bytes(range(256)))
