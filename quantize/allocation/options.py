"""The formats that mixed precision chooses from for each linear, and what each costs."""

from __future__ import annotations

import math

from ...recipes.schema import Scheme

FLOAT = "float"
INT8 = "int8"
GROUPED = {"g128": 128, "g64": 64, "g32": 32}
OPTIONS = (*GROUPED, INT8, FLOAT)  # from few bytes to many
SCALE_BITS, ZERO_POINT_BITS = 16, 4
MIN_BITS = 4  # of a weight in any format, without scales and zero points
MIN_BITS_PER_WEIGHT = MIN_BITS + (SCALE_BITS + ZERO_POINT_BITS) / max(GROUPED.values())


def list_options(scheme: Scheme) -> dict[str, Scheme | None]:
    """Returns the formats by name.

    Args:
        scheme: The recipe's primary scheme, whose zero points the options in 4 bits have or lack as well.

    Returns:
        The scheme of each option; None for the weight as it is.
    """
    grouped = {name: scheme.model_copy(update={"group_size": size}) for name, size in GROUPED.items()}
    int8 = Scheme(bits=8, group_size="channel", symmetric=True, narrow_range=True)
    return {**grouped, INT8: int8, FLOAT: None}


def count_bytes(shape: tuple[int, ...], scheme: Scheme | None, float_bytes: int) -> int:
    """Returns the bytes of a weight (out, in) in a format, with its scales and zero points.

    Args:
        shape: Of the weight.
        scheme: The format; None for floats.
        float_bytes: Of one value in floats.
    """
    if scheme is None:
        return math.prod(shape) * float_bytes
    height, width = shape
    groups = width // scheme.resolve_group_size(width)
    zero_points = ZERO_POINT_BITS if scheme.bits == 4 else 8
    return height * width * scheme.bits // 8 + height * groups * (SCALE_BITS + zero_points) // 8
