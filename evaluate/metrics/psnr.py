"""PSNR: per-picture dB on 8-bit RGB. Identical pictures have none; they are counted apart."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from ...prompts import Prompt
from ..registry import PairMetric, Picture, Score, Settings, Values


def psnr(reference: Picture, variant: Picture) -> float | None:
    """Decibels, or None for identical pictures, whose PSNR is infinite."""
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(reference, variant):
        return None
    return float(peak_signal_noise_ratio(reference, variant, data_range=255))


def _measure(reference: Picture, variant: Picture, _prompt: Prompt) -> Values:
    return {"psnr": psnr(reference, variant)}


def make(_settings: Settings) -> PairMetric:
    return PairMetric(
        name="psnr",
        scores=(Score(name="psnr", title="PSNR", unit="dB"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_truth=True,
    )
