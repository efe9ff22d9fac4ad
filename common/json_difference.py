"""Finds where two values of JSON differ, such as what a file says and what follows from the rest of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

TOLERANCE = 1e-6  # of numbers, relative; far more than what releases of libraries round differently


def find_difference(value: Any, expected: Any, key: str, skip: Collection[str] = ()) -> str:
    """Compares two values of JSON.

    Args:
        value: A value.
        expected: What it should be.
        key: Where the value is; empty for the top.
        skip: Keys, at any depth, whose values are not compared.

    Returns:
        A clause such as `memory.peak is 3, not 4` on the first difference; empty if there is none.
    """
    entries: list[tuple[Any, Any, str]] = []
    if isinstance(value, Mapping) and isinstance(expected, Mapping):
        names = [name for name in dict.fromkeys((*value, *expected)) if name not in skip]
        entries = [(value.get(name), expected.get(name), f"{key}.{name}".lstrip(".")) for name in names]
    elif isinstance(value, list | tuple) and isinstance(expected, list | tuple) and len(value) == len(expected):
        entries = [(*pair, f"{key}.{index}") for index, pair in enumerate(zip(value, expected, strict=True))]
    elif not _is_equal(value, expected):
        return f"{key} is {show_value(value)}, not {show_value(expected)}"
    return next(filter(None, (find_difference(*entry, skip) for entry in entries)), "")


def show_value(value: Any) -> str:
    """A value in short: of lists and mappings only the number of entries."""
    if value is None or value == () or value == [] or value == {}:
        return "nothing"
    if isinstance(value, Mapping | list | tuple):
        return f"{len(value)} entries" if len(value) > 1 else "1 entry"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if is_number else repr(value)


def _is_equal(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float | int):
        return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)
