"""FLIP with NVIDIA's evaluator, which is an optional dependency."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings, PairMetric, UnavailableMetric
from edgepress.evaluate.metrics.flip import compute_error_map, create_metric
from edgepress.prompts.prompt import Prompt

PROMPT = Prompt(id="a", prompt="", language="en")


def measure(reference: ImageArray, variant: ImageArray) -> float:
    metric = create_metric(MetricSettings())
    assert isinstance(metric, PairMetric)
    assert not metric.scores[0].higher_is_better
    assert metric.version().startswith("flip-evaluator ")
    return metric.measure(reference, variant, PROMPT)["flip"] or 0.0


def test_identical_images_score_0(noise: ImageArray) -> None:
    assert measure(noise, noise.copy()) == 0


def test_green_and_blue_have_the_largest_error() -> None:
    """The paper scales the largest color distance of sRGB to 1, which is that of pure green and pure blue."""
    green, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    green[..., 1], blue[..., 2] = 255, 255
    assert measure(green, blue) == pytest.approx(1.0, abs=0.01)


def test_error_map_is_local() -> None:
    """Errors spread no further than the contrast filter, which spans some 20 pixels at this distance."""
    reference = np.full((96, 128, 3), 128, np.uint8)
    variant = reference.copy()
    variant[30:40, 100:110] = (200, 60, 60)
    errors = compute_error_map(reference, variant)
    assert errors.shape == (96, 128)
    assert errors[34, 104] > 0.3
    assert errors[:, :70].max() < 0.01
    assert measure(reference, variant) == pytest.approx(errors.mean(), rel=1e-5)


def test_missing_package_makes_the_metric_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "flip_evaluator", raising=False)
    metric = create_metric(MetricSettings())
    assert isinstance(metric, UnavailableMetric)
    assert "pip install 'edgepress[flip]'" in metric.reason
