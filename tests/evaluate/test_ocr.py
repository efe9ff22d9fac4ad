from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.generate import open_picture
from edgepress.evaluate.ocr import Box, enlarge, lines_of, read, version
from edgepress.prompts import Prompt


def test_true_signs_are_read(signs: list[tuple[Prompt, Path]]) -> None:
    for prompt, file in signs:
        letters = ["".join(line.split()) for line in read(open_picture(file))]
        assert letters == list(prompt.lines)


def test_a_blank_picture_has_no_lines() -> None:
    assert read(np.full((128, 128, 3), 230, np.uint8)) == []


def test_boxes_become_lines_from_top_to_bottom_and_left_to_right() -> None:
    boxes = [Box(50, 32, 90, 62, "VOW"), Box(60, 2, 90, 30, "OOD"), Box(0, 0, 40, 28, "G"), Box(0, 30, 40, 60, "A")]
    assert lines_of(boxes) == ["G OOD", "A VOW"]


def test_boxes_that_overlap_a_little_are_two_lines() -> None:
    assert lines_of([Box(0, 210, 511, 511, "安家"), Box(0, 0, 511, 301, "园春")]) == ["园春", "安家"]


def test_no_boxes_no_lines() -> None:
    assert lines_of([]) == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((128, 128), (512, 512)), ((100, 400), (512, 2048)), ((512, 700), (512, 700)), ((1024, 768), (1024, 768))],
)
def test_small_pictures_are_enlarged(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert enlarge(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)


def test_version_names_the_engine() -> None:
    assert version().startswith("rapidocr 3.")
