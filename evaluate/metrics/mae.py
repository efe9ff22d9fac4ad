"""MAE: the mean absolute difference of 8-bit RGB values, in 0..255. 0 for identical images."""

from __future__ import annotations

import numpy as np

from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues


def compute_mae(reference: ImageArray, variant: ImageArray) -> float:
    """Returns the mean absolute difference of two images, in 8-bit steps."""
    return float(np.abs(reference.astype(np.int16) - variant).mean())


def create_metric(_settings: MetricSettings) -> PairMetric:
    """Creates the metric."""
    return PairMetric(
        name="mae",
        scores=(Score(name="mae", title="MAE", unit="/255", higher_is_better=False),),
        version=lambda: "1",
        measure=_measure,
        against_ground_truth=True,
    )


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"mae": compute_mae(reference, variant)}
