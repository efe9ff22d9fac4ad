from __future__ import annotations

import numpy as np
import pytest
from helpers.image_pairs import as_tensor, disturbed
from torchmetrics.functional.image import structural_similarity_index_measure

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.ssim import compute_ssim, create_metric
from edgepress.prompts.prompt import Prompt

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def test_identical_pictures_score_1(noise: ImageArray) -> None:
    assert create_metric(MetricSettings()).measure(noise, noise.copy(), Prompt(id="a", prompt="", language="en")) == {
        "ssim": 1.0
    }


def test_flat_pictures_have_the_closed_form() -> None:
    one, other = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 160, np.uint8)
    assert compute_ssim(one, other) == pytest.approx((2 * 100 * 160 + C1) / (100**2 + 160**2 + C1))


def test_a_picture_of_one_window_has_the_value_of_the_definition() -> None:
    """Wang et al.: an 11 x 11 Gaussian window of sigma 1.5; an 11 x 11 picture holds just one."""
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 256, (2, 11, 11, 3), dtype=np.uint8)
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(bell, bell)[..., None] / bell.sum() ** 2
    x, y = one.astype(float), other.astype(float)
    mean_x, mean_y = (weight * x).sum((0, 1)), (weight * y).sum((0, 1))
    var_x, var_y = (weight * x * x).sum((0, 1)) - mean_x**2, (weight * y * y).sum((0, 1)) - mean_y**2
    cov = (weight * x * y).sum((0, 1)) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    expected = (likeness / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))).mean()
    assert compute_ssim(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("deviation", [2, 10, 40])
def test_torchmetrics_says_the_same_of_every_whole_window(noise: ImageArray, deviation: float) -> None:
    """Its mean also counts windows that reach over the edge, into a mirrored picture; Wang et al. count whole ones."""
    other = disturbed(noise, deviation)
    _, full = structural_similarity_index_measure(
        as_tensor(other), as_tensor(noise), data_range=1.0, return_full_image=True
    )
    assert compute_ssim(noise, other) == pytest.approx(full[..., 5:-5, 5:-5].mean().item())
