"""The integer format of a weight, as plain data: recipes name it, and reading a recipe must not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantSpec:
    """The integer format of one weight.

    Attributes:
        bits: Bits per code, 4 or 8.
        group_size: Input channels that share a scale; the input width quantizes per output channel.
        symmetric: Fixes every zero point at the middle code (8, or 128 with 8 bits).
        narrow_range: Leaves out the lowest code, so that the scale of a group is max|w| / 7 (127 with 8 bits). Needs
            `symmetric`.

    Raises:
        ValueError: `narrow_range` without `symmetric`.
    """

    bits: int = 4
    group_size: int = 128
    symmetric: bool = False
    narrow_range: bool = False

    def __post_init__(self) -> None:
        if self.narrow_range and not self.symmetric:
            raise ValueError("narrow_range needs symmetric=True")
