from __future__ import annotations

import math

import numpy as np
import pytest

from edgepress.evaluate.metrics.psnr import METRIC, psnr
from edgepress.evaluate.registry import Picture
from edgepress.prompts import Prompt


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_a_constant_offset_has_the_psnr_of_the_closed_form(offset: int) -> None:
    picture = np.full((16, 20, 3), 50, np.uint8)
    assert psnr(picture, picture + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))


def test_a_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr(white, black) == psnr(black, white) == 0


def test_identical_pictures_have_none(noise: Picture) -> None:
    prompt = Prompt(id="a", prompt="", language="en")
    assert METRIC.measure(noise, noise.copy(), prompt) == {"psnr": None}
