"""What the demo's CLIP is tried on differs as it says."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgepress.benchmarks.evaluation.clip_perturbations import PERTURBATIONS
from edgepress.demo.signs import dataset


@pytest.mark.parametrize("name", ["with noise, σ 8 of 255", "as JPEG of quality 50", "10 steps of 255 brighter"])
def test_a_change_is_another_picture_of_the_same_size(name: str) -> None:
    sign = dataset.held_out_signs("evaluation")[0]
    grey = np.full((128, 128, 3), 100, np.uint8)
    grey[:64] = 130
    changed = PERTURBATIONS[name](sign, grey, random.Random(0))
    assert changed.shape == grey.shape
    assert changed.dtype == np.uint8
    assert np.abs(changed.astype(int) - grey).mean() <= 11
    if "brighter" in name:
        assert (changed == grey + 10).all()
