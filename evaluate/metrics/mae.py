"""MAE: the mean absolute difference of 8-bit RGB values, in steps of 255; 0 for identical pictures."""

from __future__ import annotations

import numpy as np

from ...prompts import Prompt
from ..registry import PairMetric, Picture, Score, Settings, Values


def mae(reference: Picture, variant: Picture) -> float:
    return float(np.abs(reference.astype(np.int16) - variant).mean())


def _measure(reference: Picture, variant: Picture, _prompt: Prompt) -> Values:
    return {"mae": mae(reference, variant)}


def make(_settings: Settings) -> PairMetric:
    return PairMetric(
        name="mae",
        scores=(Score(name="mae", title="MAE", unit="/255", higher_is_better=False),),
        version=lambda: "1",
        measure=_measure,
        against_truth=True,
    )
