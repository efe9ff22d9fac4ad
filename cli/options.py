"""Types of options that several commands have."""

from __future__ import annotations

import re
from typing import Any

import click


class ImageSize(click.ParamType[tuple[int, int]]):
    """A picture's height and width in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", value)
        if not match:
            self.fail(f"{value!r} is no size; write height and width like 512x768.", param, ctx)
        return int(match[1]), int(match[2])
