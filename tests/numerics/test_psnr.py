from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.image_pairs import add_noise, as_tensor, random_image
from torchmetrics.functional.image import peak_signal_noise_ratio

from edgepress.numerics.psnr import compute_psnr


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_constant_offset_has_a_closed_form(offset: int) -> None:
    image = np.full((16, 20, 3), 50, np.uint8)
    assert compute_psnr(image, image + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))


@pytest.mark.parametrize("deviation", [2, 10, 40])
def test_torchmetrics_agrees(deviation: float) -> None:
    """Per image, with `dim=(1, 2, 3)`; by default torchmetrics pools the errors of a batch."""
    reference = random_image(64, 48)
    image = add_noise(reference, deviation)
    expected = peak_signal_noise_ratio(as_tensor(image), as_tensor(reference), data_range=1.0, dim=(1, 2, 3))
    assert compute_psnr(reference, image) == pytest.approx(expected.item())


def test_differences_do_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert compute_psnr(white, black) == compute_psnr(black, white) == 0


def test_identical_images_have_no_psnr() -> None:
    image = random_image(8, 8)
    assert compute_psnr(image, image.copy()) is None
