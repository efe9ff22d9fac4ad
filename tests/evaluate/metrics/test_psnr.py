from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.image_pairs import as_tensor, disturbed
from torchmetrics.functional.image import peak_signal_noise_ratio

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.psnr import compute_psnr, create_metric
from edgepress.prompts.prompt import Prompt


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_a_constant_offset_has_the_psnr_of_the_closed_form(offset: int) -> None:
    picture = np.full((16, 20, 3), 50, np.uint8)
    assert compute_psnr(picture, picture + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))


@pytest.mark.parametrize("deviation", [2, 10, 40])
def test_torchmetrics_says_the_same_of_a_pair(noise: ImageArray, deviation: float) -> None:
    """Per picture, as `dim=(1, 2, 3)` asks; its default pools the errors of a batch."""
    other = disturbed(noise, deviation)
    expected = peak_signal_noise_ratio(as_tensor(other), as_tensor(noise), data_range=1.0, dim=(1, 2, 3))
    assert compute_psnr(noise, other) == pytest.approx(expected.item())


def test_a_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert compute_psnr(white, black) == compute_psnr(black, white) == 0


def test_identical_pictures_have_none(noise: ImageArray) -> None:
    prompt = Prompt(id="a", prompt="", language="en")
    assert create_metric(MetricSettings()).measure(noise, noise.copy(), prompt) == {"psnr": None}
