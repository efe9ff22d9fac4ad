"""MAE: the mean absolute difference of 8-bit RGB values, in steps of 255; 0 for identical pictures."""

from __future__ import annotations

import numpy as np

from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues


def compute_mae(reference: ImageArray, variant: ImageArray) -> float:
    return float(np.abs(reference.astype(np.int16) - variant).mean())


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"mae": compute_mae(reference, variant)}


def create_metric(_settings: MetricSettings) -> PairMetric:
    return PairMetric(
        name="mae",
        scores=(Score(name="mae", title="MAE", unit="/255", higher_is_better=False),),
        version=lambda: "1",
        measure=_measure,
        against_ground_truth=True,
    )
