"""Types of arguments and options. What they refuse is said in one sentence: the value, and what to give instead."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..common.arguments import MAX_SECONDS
from ..common.device_names import check_device_name
from ..common.file_names import ADDRESS
from ..common.suggest import suggest_name
from ..common.validation import format_value
from ..recipes.budget import parse_budget

MAX_TUNE_MINUTES = 10_080  # a week


class LocalPath(click.Path):
    """A path on this machine. `~` is the home folder, which shells do not say in `--output=~/x`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if ADDRESS.match(str(value)):
            self.fail(f"{format_value(str(value))} is an address. Give a path on this machine.", param, ctx)
        try:
            return path.expanduser()
        except RuntimeError:  # no user with that home folder
            return path


class ImageSize(click.ParamType[tuple[int, int]]):
    """An image's height and width in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})", value, re.ASCII)
        if not match:
            self.fail(f"{format_value(value)} is not a size. Write height and width like 512x768.", param, ctx)
        return int(match[1]), int(match[2])


class WholeNumber(click.IntRange):
    """A whole number within limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except (click.BadParameter, ValueError):  # Python converts no more than 4300 digits
            example = self.max if self.min is None else max(self.min, 1)
            expected = f"a whole number{_describe_limits(self)}"
            return self.fail(f"{format_value(str(value))} is not {expected}. Give one, such as {example}.", param, ctx)


class Number(click.FloatRange):
    """A number within limits, which NaN is not, though it is neither below nor above any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(super().convert(value, param, ctx))
        except click.BadParameter:
            number = math.nan
        if math.isnan(number):
            expected = f"a number{_describe_limits(self)}"
            self.fail(f"{format_value(str(value))} is not {expected}. Give one, such as 2.5.", param, ctx)
        return number


class Seconds(Number):
    """A duration: positive, and no longer than about a year."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(0, MAX_SECONDS, min_open=True)


class NameChoice(click.Choice[str]):
    """One of a few names."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: ARG002  click's
        return f"{format_value(str(value))} is not known; {suggest_name(str(value), list(map(str, self.choices)))}"


class TuneTime(click.ParamType[str | float]):
    """`off`, `auto`, or minutes: positive, and no longer than a week."""

    name = "off|auto|MINUTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        if str(value).lower() in ("off", "auto"):
            return str(value).lower()
        if re.fullmatch(r"\d{1,5}(\.\d{1,9})?", str(value), re.ASCII) and 0 < float(value) <= MAX_TUNE_MINUTES:
            return float(value)
        expected = f"Write minutes like 10, up to {MAX_TUNE_MINUTES}."
        return self.fail(f"{format_value(str(value))} is not off, auto or minutes. {expected}", param, ctx)


class DeviceName(click.ParamType[str]):
    """What PyTorch computes on."""

    name = "auto|cpu|cuda[:N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_device_name(str(value).lower())
        except ValueError as error:
            return self.fail(str(error), param, ctx)


class BudgetText(click.ParamType[str]):
    """Bits per weight or bytes, for mixed precision."""

    name = "BITS|SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_budget(str(value))
        except ValueError as error:
            self.fail(f"{format_value(str(value))} is no budget: {error}.", param, ctx)
        return str(value)


class ByteSize(click.ParamType[int]):
    """Bytes, given as a number with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]i?)B", value, re.ASCII)
        base = 1024 if match and match[2].endswith("i") else 1000
        num_bytes = int(float(match[1]) * base ** (1 + "KMGT".index(match[2][0]))) if match else 0
        if not num_bytes:
            self.fail(f"{format_value(value)} is not a size. Write it like 6GiB or 500MB.", param, ctx)
        return num_bytes


class RecipeName(click.ParamType[str]):
    """A recipe's name or file; shells complete the names."""

    name = "NAME|FILE"

    def shell_complete(self, _: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from ..recipes.loader import recipe_names  # slow to import, and most commands read no recipe

        names = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


def _describe_limits(limits: click.IntRange | click.FloatRange) -> str:
    """The limits of a number, such as " from 1 to 100"; empty if there are none."""
    low, high = limits.min, limits.max
    if low is not None and high is not None and not limits.min_open:
        return f" from {low:g} to {high:g}" if isinstance(low, float) else f" from {low} to {high}"
    texts = [] if low is None else [f"{'above' if limits.min_open else 'of at least'} {low}"]
    texts += [] if high is None else [f"up to {high}"]
    return f" {' and '.join(texts)}" if texts else ""
