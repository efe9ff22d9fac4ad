"""Detects images that show nothing: black ones, flat ones, and duplicates of another prompt's image.

NaN pixels are detected where images are generated (`generation.generators`), because image files cannot store NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .types import ImageArray

Defect = Literal["black", "flat", "nan", "duplicate"]
FLAT_STD = 1.0  # an image is flat if every channel's standard deviation is below this, in 8-bit steps
BLACK_MEAN = 16.0  # a flat image is black if its mean is below this, in 8-bit steps


def detect_defect(image: ImageArray) -> Defect | None:
    """Returns the defect that a single image shows, or None."""
    if image.std(axis=(0, 1)).max() >= FLAT_STD:
        return None
    return "black" if image.mean() < BLACK_MEAN else "flat"


def find_duplicate_digests(images: Iterable[tuple[str, str]]) -> set[str]:
    """Returns the digests that images of different prompts share.

    Args:
        images: Prompt id and content digest of each image.
    """
    prompt_ids: dict[str, set[str]] = {}
    for prompt_id, digest in images:
        prompt_ids.setdefault(digest, set()).add(prompt_id)
    return {digest for digest, ids in prompt_ids.items() if len(ids) > 1}
