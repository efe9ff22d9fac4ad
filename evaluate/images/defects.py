"""Finds pictures that show nothing: black and flat ones, and those that another prompt's picture repeats.

Whether a pixel was NaN is seen where pictures are painted (`painters`); files cannot hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .types import ImageArray

Defect = Literal["black", "flat", "nan", "duplicate"]
FLAT_STD = 1.0  # standard deviation of a channel, in 8-bit steps
BLACK_MEAN = 16.0  # mean of the channels, in 8-bit steps


def detect_defect(picture: ImageArray) -> Defect | None:
    """What one picture shows by itself."""
    if picture.std(axis=(0, 1)).max() >= FLAT_STD:
        return None
    return "black" if picture.mean() < BLACK_MEAN else "flat"


def find_duplicate_digests(pictures: Iterable[tuple[str, str]]) -> set[str]:
    """The contents that pictures of several prompts share, given (prompt id, digest of the content)."""
    prompts: dict[str, set[str]] = {}
    for prompt, digest in pictures:
        prompts.setdefault(digest, set()).add(prompt)
    return {digest for digest, ids in prompts.items() if len(ids) > 1}
