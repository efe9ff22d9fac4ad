"""FLIP: the difference of two images as seen by a person who flips between them (Andersson et al. 2020).

Computed by NVIDIA's flip-evaluator at 67 pixels per degree (a 4K screen at arm's length). 0 for identical images.
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
    """Returns the FLIP error of each pixel, in 0..1, with shape ``(height, width)``."""
    import flip_evaluator

    pair = [image.astype(np.float32) / 255 for image in (reference, variant)]
    errors, _, _ = flip_evaluator.evaluate(*pair, "LDR", applyMagma=False, computeMeanError=False)
    error_map: npt.NDArray[np.float32] = np.asarray(errors, np.float32).reshape(reference.shape[:2])
    return error_map


def create_metric(_settings: MetricSettings) -> PairMetric | UnavailableMetric:
    """Creates the metric, if flip-evaluator is installed."""
    if find_spec("flip_evaluator") is None:
        return UnavailableMetric("flip", SCORES, MISSING_PACKAGE)
    return PairMetric(
        name="flip",
        scores=SCORES,
        version=lambda: f"flip-evaluator {version('flip-evaluator')}",
        measure=_measure,
        against_ground_truth=True,
    )


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"flip": float(compute_error_map(reference, variant).mean(dtype=np.float64))}
