"""Perturbations that need no fonts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgepress.benchmarks.evaluation.clip_perturbations import PERTURBATIONS
from edgepress.demo.signs import dataset


@pytest.mark.parametrize("name", ["with noise, σ 8 of 255", "as JPEG of quality 50", "10 steps of 255 brighter"])
def test_a_perturbed_image_differs_slightly(name: str) -> None:
    sign = dataset.held_out_signs("evaluation")[0]
    image = np.full((128, 128, 3), 100, np.uint8)
    image[:64] = 130
    perturbed = PERTURBATIONS[name](sign, image, random.Random(0))
    assert perturbed.shape == image.shape
    assert perturbed.dtype == np.uint8
    assert np.abs(perturbed.astype(int) - image).mean() <= 11
    if "brighter" in name:
        assert (perturbed == image + 10).all()
