"""SSIM as Wang et al. define it: Gaussian window of sigma 1.5, on RGB."""

from __future__ import annotations

from importlib.metadata import version

from ...prompts import Prompt
from ..registry import PairMetric, Picture, Score, Settings, Values


def ssim(reference: Picture, variant: Picture) -> float:
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(
        reference,
        variant,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)


def _measure(reference: Picture, variant: Picture, _prompt: Prompt) -> Values:
    return {"ssim": ssim(reference, variant)}


def make(_settings: Settings) -> PairMetric:
    return PairMetric(
        name="ssim",
        scores=(Score(name="ssim", title="SSIM"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_truth=True,
    )
