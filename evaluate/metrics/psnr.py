"""PSNR: per-picture dB on 8-bit RGB. Identical pictures have none; they are counted apart."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues


def compute_psnr(reference: ImageArray, variant: ImageArray) -> float | None:
    """Decibels, or None for identical pictures, whose PSNR is infinite."""
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(reference, variant):
        return None
    return float(peak_signal_noise_ratio(reference, variant, data_range=255))


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"psnr": compute_psnr(reference, variant)}


def create_metric(_settings: MetricSettings) -> PairMetric:
    return PairMetric(
        name="psnr",
        scores=(Score(name="psnr", title="PSNR", unit="dB"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_ground_truth=True,
    )
