from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.defects import defect_of, repeated
from edgepress.evaluate.pictures import open_picture
from edgepress.evaluate.registry import Picture
from edgepress.prompts import Prompt


@pytest.mark.parametrize(
    ("colour", "defect"),
    [((0, 0, 0), "black"), ((2, 1, 3), "black"), ((128, 128, 128), "flat"), ((200, 20, 30), "flat")],
)
def test_pictures_that_show_nothing(colour: tuple[int, int, int], defect: str) -> None:
    assert defect_of(np.full((32, 32, 3), colour, np.uint8)) == defect


def test_pictures_that_show_something(noise: Picture, signs: list[tuple[Prompt, Path]]) -> None:
    assert defect_of(noise) is None
    assert [defect_of(open_picture(file)) for _, file in signs] == [None] * len(signs)


def test_what_two_prompts_share_is_repeated_and_what_two_seeds_share_is_not() -> None:
    assert repeated([("a", "x"), ("b", "x"), ("b", "y"), ("c", "z"), ("c", "z")]) == {"x"}
