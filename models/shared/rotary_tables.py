"""Rotary position embedding in numpy: the cosines and sines that hosts give to graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float32]
MAX_WIDTH = 65_536  # channels of a head


@dataclass(frozen=True)
class RotaryTables:
    """Rotary embedding over several axes.

    Attributes:
        widths: Channels of a head for each axis.
        theta: Base of the frequencies.
        rounds_angles: Whether angles are rounded to float32 before their cosine is taken, or the cosine is.
    """

    widths: tuple[int, ...]
    theta: float
    rounds_angles: bool = True

    def __post_init__(self) -> None:
        if not all(type(width) is int and 0 < width <= MAX_WIDTH for width in self.widths):
            raise ValueError(f"the widths of rotary axes are {list(self.widths)} instead of positive whole numbers")
        if not 0 < self.theta < float("inf"):
            raise ValueError(f"the base of rotary frequencies is {self.theta} instead of a positive number")

    def compute(self, positions: NDArray[np.int64]) -> tuple[Table, Table]:
        """Returns cos and sin (tokens, head size / 2) of positions (tokens, axes).

        Angles are position * theta^(-2i/width), multiplied in float64, as diffusers does.
        """
        axes = zip(positions.T, self.widths, strict=True)
        table = np.concatenate([np.outer(indices, self._frequencies(width)) for indices, width in axes], axis=1)
        if self.rounds_angles:
            table = table.astype(np.float32)
        return np.cos(table).astype(np.float32), np.sin(table).astype(np.float32)

    def _frequencies(self, width: int) -> NDArray[np.float64]:
        return 1.0 / self.theta ** (np.arange(0, width, 2, dtype=np.float64) / width)


def name_tables(image: tuple[Table, Table], text: tuple[Table, Table]) -> dict[str, Table]:
    """Returns cos and sin of an image's and of a prompt's tokens, by the names of `make_rotary_ports`."""
    return dict(zip(("image_cos", "image_sin", "text_cos", "text_sin"), (*image, *text), strict=True))
