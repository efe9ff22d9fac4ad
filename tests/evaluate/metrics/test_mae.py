from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.metrics.mae import mae, make
from edgepress.evaluate.registry import Picture, Settings
from edgepress.prompts import Prompt

from .pairs import disturbed


def test_it_is_the_mean_of_all_absolute_differences(noise: Picture) -> None:
    other = disturbed(noise, 30)
    by_hand = [abs(int(a) - int(b)) for a, b in zip(noise.ravel(), other.ravel(), strict=True)]
    assert mae(noise, other) == pytest.approx(sum(by_hand) / len(by_hand))


def test_a_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert mae(black, white) == mae(white, black) == 255


def test_less_is_better(noise: Picture) -> None:
    metric = make(Settings())
    assert not metric.scores[0].higher_is_better
    assert metric.measure(noise, noise.copy(), Prompt(id="a", prompt="", language="en")) == {"mae": 0}
