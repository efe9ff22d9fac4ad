"""SSIM as Wang et al. define it: Gaussian window of sigma 1.5, on RGB."""

from __future__ import annotations

from importlib.metadata import version

from ...common.errors import UserError
from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues

WINDOW_SIZE = 11  # pixels a side: 3.5 standard deviations either way


def compute_ssim(reference: ImageArray, variant: ImageArray) -> float:
    """The mean over windows that lie within the picture.

    Raises:
        UserError: the picture is smaller than a window.
    """
    from skimage.metrics import structural_similarity

    height, width = reference.shape[:2]
    if min(height, width) < WINDOW_SIZE:
        raise UserError(
            f"pictures of {width}x{height} are too small for SSIM, whose window is {WINDOW_SIZE}x{WINDOW_SIZE}; name the metrics "
            "to measure with --metric"
        )
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


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"ssim": compute_ssim(reference, variant)}


def create_metric(_settings: MetricSettings) -> PairMetric:
    return PairMetric(
        name="ssim",
        scores=(Score(name="ssim", title="SSIM"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_ground_truth=True,
    )
