from __future__ import annotations

import numpy as np
import pytest
from helpers.image_pairs import add_noise, as_tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from edgepress.evaluate.images.suitability import UnsuitableImageError
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.ssim import compute_ssim, create_metric
from edgepress.prompts.prompt import Prompt

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def test_identical_images_score_1(noise: ImageArray) -> None:
    prompt = Prompt(id="a", prompt="", language="en")
    assert create_metric(MetricSettings()).measure(noise, noise.copy(), prompt) == {"ssim": 1.0}


def test_flat_images_have_a_closed_form() -> None:
    reference, variant = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 160, np.uint8)
    assert compute_ssim(reference, variant) == pytest.approx((2 * 100 * 160 + C1) / (100**2 + 160**2 + C1))


def test_image_of_one_window_has_the_value_of_the_definition() -> None:
    """Wang et al. use a Gaussian window of 11 x 11 pixels and sigma 1.5. An image of that size has a single window."""
    rng = np.random.default_rng(1)
    reference, variant = rng.integers(0, 256, (2, 11, 11, 3), dtype=np.uint8)
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(bell, bell)[..., None] / bell.sum() ** 2
    x, y = reference.astype(float), variant.astype(float)
    mean_x, mean_y = (weight * x).sum((0, 1)), (weight * y).sum((0, 1))
    var_x, var_y = (weight * x * x).sum((0, 1)) - mean_x**2, (weight * y * y).sum((0, 1)) - mean_y**2
    cov = (weight * x * y).sum((0, 1)) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    expected = (numerator / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))).mean()
    assert compute_ssim(reference, variant) == pytest.approx(expected)


@pytest.mark.parametrize("deviation", [2, 10, 40])
def test_torchmetrics_agrees_on_every_whole_window(noise: ImageArray, deviation: float) -> None:
    """The mean of torchmetrics also covers windows that extend over the edge; that of Wang et al. does not."""
    variant = add_noise(noise, deviation)
    _, full = structural_similarity_index_measure(
        as_tensor(variant), as_tensor(noise), data_range=1.0, return_full_image=True
    )
    assert compute_ssim(noise, variant) == pytest.approx(full[..., 5:-5, 5:-5].mean().item())


def test_image_smaller_than_a_window_is_unsuitable() -> None:
    image = np.zeros((8, 20, 3), np.uint8)
    with pytest.raises(UnsuitableImageError, match="an image of 20x8 pixels is smaller than the 11x11 window of SSIM"):
        compute_ssim(image, image)
