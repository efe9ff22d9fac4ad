"""Ranges that numbers in models' configs lie in, by their keys. Beyond them images are wrong, though nothing fails.

The ranges are far wider than what has been published: they catch lost digits and signs, not unusual models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .validation import format_value

RANGES: Mapping[str, tuple[float, float]] = {
    r"scaling_factor|latents_std|t_scale|timestep_scale(_multiplier)?": (1e-3, 1e4),
    r"shift_factor|latents_mean": (-1e4, 1e4),
    r"theta|(decoder_)?rope_theta|rotary_emb_base": (1.0, 1e10),
    r"(\w+_)?(eps|epsilon)": (0.0, 0.1),
    r"dropout|dropout_rate|attention_dropout": (0.0, 1.0),
}
MAX_WHOLE_NUMBER = 10**12  # of layers, channels, positions and the like


def find_implausible_value(config: Mapping[str, Any]) -> str:
    """Finds a number that no model can have under its key, in a config or a section of it.

    Values that are no numbers are left to other checks.

    Returns:
        A clause such as `t_scale = 1e+30: it must be from 0.001 to 10000`; empty if there is none.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            problem = find_implausible_value(value)
            if problem:
                return problem
        elif any(isinstance(number, int) and abs(number) > MAX_WHOLE_NUMBER for number in _list_numbers(value)):
            return f"{key} = {format_value(value)}: no model has a whole number above 10^12"
        for low, high in [limits for pattern, limits in RANGES.items() if re.fullmatch(pattern, str(key))]:
            number = next((number for number in _list_numbers(value) if not low <= number <= high), None)
            if number is not None:
                return f"{key} = {format_value(number)}: it must be from {low:g} to {high:g}"
    return ""


def _list_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _list_numbers(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
