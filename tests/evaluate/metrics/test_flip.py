"""FLIP: NVIDIA's evaluator is asked rightly. It is an extra; without it the score is said to be missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings, PairMetric, UnavailableMetric
from edgepress.evaluate.metrics.flip import compute_error_map, create_metric
from edgepress.prompts.prompt import Prompt

PROMPT = Prompt(id="a", prompt="", language="en")


def measure(one: ImageArray, other: ImageArray) -> float:
    metric = create_metric(MetricSettings())
    assert isinstance(metric, PairMetric)
    assert not metric.scores[0].higher_is_better
    assert metric.version().startswith("flip-evaluator ")
    return metric.measure(one, other, PROMPT)["flip"] or 0.0


def test_identical_pictures_score_0(noise: ImageArray) -> None:
    assert measure(noise, noise.copy()) == 0


def test_green_on_blue_is_among_the_largest_errors_there_are() -> None:
    """The paper scales the largest colour distance of sRGB to 1, and takes that of full green and full blue for it."""
    green, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    green[..., 1], blue[..., 2] = 255, 255
    assert measure(green, blue) == pytest.approx(1.0, abs=0.01)


def test_the_map_shows_where() -> None:
    """Not wider than the eye's filter, which spans some 20 pixels at this distance."""
    one = np.full((96, 128, 3), 128, np.uint8)
    other = one.copy()
    other[30:40, 100:110] = (200, 60, 60)
    errors = compute_error_map(one, other)
    assert errors.shape == (96, 128)
    assert errors[34, 104] > 0.3
    assert errors[:, :70].max() < 0.01
    assert measure(one, other) == pytest.approx(errors.mean(), rel=1e-5)


def test_where_the_package_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "flip_evaluator", raising=False)
    metric = create_metric(MetricSettings())
    assert isinstance(metric, UnavailableMetric)
    assert "pip install 'edgepress[flip]'" in metric.reason
