"""SSIM as Wang et al. define it: Gaussian window of sigma 1.5, on RGB."""

from __future__ import annotations

from importlib.metadata import version

from ...errors import UserError
from ...prompts import Prompt
from ..registry import PairMetric, Picture, Score, Settings, Values

WINDOW = 11  # pixels a side: 3.5 standard deviations either way


def ssim(reference: Picture, variant: Picture) -> float:
    """The mean over windows that lie within the picture.

    Raises:
        UserError: the picture is smaller than a window.
    """
    from skimage.metrics import structural_similarity

    height, width = reference.shape[:2]
    if min(height, width) < WINDOW:
        raise UserError(
            f"pictures of {width}x{height} are too small for SSIM, whose window is {WINDOW}x{WINDOW}; name the metrics "
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
