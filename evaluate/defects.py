"""Finds pictures that show nothing: black ones, which NaN in a pipeline also becomes, and flat ones."""

from __future__ import annotations

from typing import Literal

from .registry import Picture

Defect = Literal["black", "flat"]
FLAT = 1.0  # standard deviation of a channel, in 8-bit steps
BLACK = 16.0  # mean of the channels, in 8-bit steps


def defect_of(picture: Picture) -> Defect | None:
    if picture.std(axis=(0, 1)).max() >= FLAT:
        return None
    return "black" if picture.mean() < BLACK else "flat"
