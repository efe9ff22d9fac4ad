"""The size that mixed precision may use, as recipes and the command line write it."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BITS_PER_WEIGHT = 32
FORMAT = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)\s*(bpw|[KMGT]i?B)")
ADVICE = "write bits per weight such as 4.5bpw, or the size of all components such as 3.6GB"


class Budget(NamedTuple):
    """A limit for quantized weights.

    Attributes:
        bits_per_weight: Bits for each weight of the quantized linears, scales and zero points included; None if the
            budget is a size.
        size: Bytes of the weight files of all components; None if the budget is in bits per weight.
    """

    bits_per_weight: float | None = None
    size: int | None = None


def parse_budget(text: str) -> Budget:
    """Reads a budget such as `4.5bpw` or `3.6GB`; `GB` is 10^9 bytes, `GiB` 2^30.

    Raises:
        ValueError: It is neither.
    """
    match = FORMAT.fullmatch(text.strip())
    value = float(match[1]) if match else 0.0
    if not match or not value:
        raise ValueError(ADVICE)
    if match[2] == "bpw":
        if value > MAX_BITS_PER_WEIGHT:
            raise ValueError(f"{text.strip()} is more than any weight has; {ADVICE}")
        return Budget(bits_per_weight=value)
    base = 1024 if match[2].endswith("iB") else 1000
    return Budget(size=int(value * base ** (1 + "KMGT".index(match[2][0]))))
