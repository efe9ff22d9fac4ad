"""SSIM as defined by Wang et al.: on RGB, with a Gaussian window of sigma 1.5. 1 for identical images."""

from __future__ import annotations

from importlib.metadata import version

from ...prompts.prompt import Prompt
from ..images.suitability import require_side
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues

WINDOW_SIZE = 11  # pixels: 3.5 standard deviations on either side


def compute_ssim(reference: ImageArray, variant: ImageArray) -> float:
    """Returns the mean SSIM over all windows that lie within the image.

    Raises:
        UnsuitableImageError: The image is smaller than a window.
    """
    from skimage.metrics import structural_similarity

    require_side(reference, WINDOW_SIZE, f"the {WINDOW_SIZE}x{WINDOW_SIZE} window of SSIM")
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


def create_metric(_settings: MetricSettings) -> PairMetric:
    """Creates the metric."""
    return PairMetric(
        name="ssim",
        scores=(Score(name="ssim", title="SSIM"),),
        version=lambda: f"scikit-image {version('scikit-image')}",
        measure=_measure,
        against_ground_truth=True,
    )


def _measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
    return {"ssim": compute_ssim(reference, variant)}
