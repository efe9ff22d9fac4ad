from __future__ import annotations

import numpy as np

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.psnr import create_metric
from edgepress.prompts.prompt import Prompt

PROMPT = Prompt(id="a", prompt="", language="en")


def test_metric_computes_decibels(noise: ImageArray) -> None:
    metric = create_metric(MetricSettings())
    black, white = np.zeros_like(noise), np.full_like(noise, 255)
    assert metric.measure(black, white, PROMPT) == {"psnr": 0}
    assert (metric.scores[0].unit, metric.scores[0].higher_is_better) == ("dB", True)


def test_identical_images_have_no_psnr(noise: ImageArray) -> None:
    assert create_metric(MetricSettings()).measure(noise, noise.copy(), PROMPT) == {"psnr": None}
