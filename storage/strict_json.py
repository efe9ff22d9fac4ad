"""Reads JSON objects strictly, those of artifacts and those of pipelines: no key twice, no number that is not finite.

Of equal keys, libraries take the last one in silence, whichever was meant.
"""

from __future__ import annotations

import json
import math
from typing import Any


def parse_strict_json(text: str, allow_infinity: bool = False) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        text: The JSON.
        allow_infinity: Whether numbers may be infinite.

    Raises:
        ValueError: It is something else. The message says what is wrong in a few words.
    """
    parse = _parse_number if allow_infinity else _parse_finite
    try:
        content = json.loads(text, object_pairs_hook=_collect_pairs, parse_constant=parse, parse_float=parse)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not valid JSON") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it does not hold a JSON object")  # noqa: TRY004  of the file's content, as all others
    return content


def _collect_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"the key {twice!r} is given twice")
    return content


def _parse_finite(text: str) -> float:
    """Parses a number as JSON's grammar allows it, which has no NaN and no infinity.

    Raises:
        ValueError: It is not finite.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is not finite")
    return number


def _parse_number(text: str) -> float:
    """Parses a number that may be infinite."""
    return float(text) if text.endswith("Infinity") else _parse_finite(text)
