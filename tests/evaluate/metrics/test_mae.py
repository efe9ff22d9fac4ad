from __future__ import annotations

import numpy as np
import pytest
from helpers.image_pairs import add_noise

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.mae import compute_mae, create_metric
from edgepress.prompts.prompt import Prompt


def test_mae_is_the_mean_of_all_absolute_differences(noise: ImageArray) -> None:
    variant = add_noise(noise, 30)
    differences = [abs(int(a) - int(b)) for a, b in zip(noise.ravel(), variant.ravel(), strict=True)]
    assert compute_mae(noise, variant) == pytest.approx(sum(differences) / len(differences))


def test_differences_do_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert compute_mae(black, white) == compute_mae(white, black) == 255


def test_lower_is_better_and_identical_images_score_0(noise: ImageArray) -> None:
    metric = create_metric(MetricSettings())
    assert not metric.scores[0].higher_is_better
    assert metric.measure(noise, noise.copy(), Prompt(id="a", prompt="", language="en")) == {"mae": 0}
