"""Names of what PyTorch computes on. What is made for a device, such as a board, is said by a recipe."""

from __future__ import annotations

import re

from .validation import format_value

DEVICE_NAME = re.compile(r"auto|cpu|cuda(?::\d{1,3})?", re.ASCII)


def check_device_name(name: str) -> str:
    """Returns the name of a device that PyTorch may compute on: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ValueError: It is none. The message says so, and what to give.
    """
    if not DEVICE_NAME.fullmatch(name):
        raise ValueError(
            f"{format_value(name)} is nothing that PyTorch computes on. Give cpu, cuda, cuda:N or auto; what to "
            "quantize for is said by the recipe."
        )
    return name
