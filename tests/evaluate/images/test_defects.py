from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.images.defects import detect_defect, find_duplicate_digests
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.images.types import ImageArray
from edgepress.prompts.prompt import Prompt


@pytest.mark.parametrize(
    ("color", "defect"),
    [((0, 0, 0), "black"), ((2, 1, 3), "black"), ((128, 128, 128), "flat"), ((200, 20, 30), "flat")],
)
def test_black_and_flat_images_are_defective(color: tuple[int, int, int], defect: str) -> None:
    assert detect_defect(np.full((32, 32, 3), color, np.uint8)) == defect


def test_noise_and_signs_are_not_defective(noise: ImageArray, signs: list[tuple[Prompt, Path]]) -> None:
    assert detect_defect(noise) is None
    assert [detect_defect(load_image(file)) for _, file in signs] == [None] * len(signs)


def test_duplicates_are_shared_by_prompts_and_not_by_seeds() -> None:
    assert find_duplicate_digests([("a", "x"), ("b", "x"), ("b", "y"), ("c", "z"), ("c", "z")]) == {"x"}
