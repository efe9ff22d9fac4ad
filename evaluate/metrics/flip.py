"""FLIP: how much two pictures differ to an eye that switches between them (Andersson et al. 2020).

NVIDIA's evaluator computes it, at 67 pixels a degree of sight (a 4K screen at arm's length); 0 for identical pictures.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues, UnavailableMetric

SCORES = (Score(name="flip", title="FLIP", higher_is_better=False),)
MISSING_PACKAGE = "the package flip-evaluator is missing; pip install 'edgepress[flip]'"


def compute_error_map(reference: ImageArray, variant: ImageArray) -> npt.NDArray[np.float32]:
    """The error of each pixel, 0..1, shape (height, width)."""
    import flip_evaluator

    pair = [picture.astype(np.float32) / 255 for picture in (reference, variant)]
    errors, _, _ = flip_evaluator.evaluate(*pair, "LDR", applyMagma=False, computeMeanError=False)
    error_map: npt.NDArray[np.float32] = np.asarray(errors, np.float32).reshape(reference.shape[:2])
    return error_map


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"flip": float(compute_error_map(reference, variant).mean(dtype=np.float64))}


def create_metric(_settings: MetricSettings) -> PairMetric | UnavailableMetric:
    if find_spec("flip_evaluator") is None:
        return UnavailableMetric("flip", SCORES, MISSING_PACKAGE)
    return PairMetric(
        name="flip",
        scores=SCORES,
        version=lambda: f"flip-evaluator {version('flip-evaluator')}",
        measure=_measure,
        against_ground_truth=True,
    )
