from __future__ import annotations

import math

import numpy as np
import pytest
from torchmetrics.functional.image import peak_signal_noise_ratio

from edgepress.evaluate.metrics.psnr import make, psnr
from edgepress.evaluate.registry import Picture, Settings
from edgepress.prompts import Prompt

from .pairs import as_tensor, disturbed


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_a_constant_offset_has_the_psnr_of_the_closed_form(offset: int) -> None:
    picture = np.full((16, 20, 3), 50, np.uint8)
    assert psnr(picture, picture + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))


@pytest.mark.parametrize("deviation", [2, 10, 40])
def test_torchmetrics_says_the_same_of_a_pair(noise: Picture, deviation: float) -> None:
    """Per picture, as `dim=(1, 2, 3)` asks; its default pools the errors of a batch."""
    other = disturbed(noise, deviation)
    expected = peak_signal_noise_ratio(as_tensor(other), as_tensor(noise), data_range=1.0, dim=(1, 2, 3))
    assert psnr(noise, other) == pytest.approx(expected.item())


def test_a_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr(white, black) == psnr(black, white) == 0


def test_identical_pictures_have_none(noise: Picture) -> None:
    prompt = Prompt(id="a", prompt="", language="en")
    assert make(Settings()).measure(noise, noise.copy(), prompt) == {"psnr": None}
