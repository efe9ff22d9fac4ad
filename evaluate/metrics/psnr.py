"""PSNR per image on 8-bit RGB, in dB. Identical images have no PSNR; they are counted separately."""

from __future__ import annotations

from importlib.metadata import version

from ...numerics.psnr import compute_psnr
from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues


def create_metric(_settings: MetricSettings) -> PairMetric:
    """Creates the metric."""
    return PairMetric(
        name="psnr",
        scores=(Score(name="psnr", title="PSNR", unit="dB"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_ground_truth=True,
    )


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"psnr": compute_psnr(reference, variant)}
