"""Renders where two images differ, in the colors of the map `magma`: by FLIP or by absolute difference.

FLIP predicts what an observer notices when alternating between the images. The absolute difference needs no extra
package and is fast; it takes the channel that differs most. Both use a square-root scale, so that a difference of 1 of
255 stays visible, and the scale is the same for all images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ..images.types import ImageArray
from ..metrics.flip import compute_error_map

ErrorMap = npt.NDArray[np.float32] | npt.NDArray[np.float64]  # (height, width)
MAX_FLIP_PIXELS = 50_000_000  # per page; FLIP takes about a second per million


@dataclass(frozen=True)
class Heatmap:
    """A kind of heat map.

    Attributes:
        title: title of the legend.
        ticks: the errors that the legend labels.
        compute_errors: computes the error of each pixel, in 0..max_error.
        max_error: the largest possible error.
    """

    title: str
    ticks: tuple[float, ...]
    compute_errors: Callable[[ImageArray, ImageArray], ErrorMap]
    max_error: float

    def render(self, reference: ImageArray, variant: ImageArray) -> ImageArray:
        """Renders the differences of two images of equal shape (height, width, 3)."""
        return apply_colormap(self.to_scale(self.compute_errors(reference, variant)))

    def to_scale(self, errors: npt.ArrayLike) -> ErrorMap:
        """Maps errors to 0..1 on the square-root scale."""
        fractions: npt.NDArray[np.float64] = np.asarray(errors, dtype=np.float64) / self.max_error
        return np.sqrt(fractions)


def select_heatmap(num_pixels: int) -> Heatmap:
    """Selects FLIP if it is installed and fast enough for so many pixels, else the absolute difference."""
    return FLIP if num_pixels <= MAX_FLIP_PIXELS and find_spec("flip_evaluator") else DIFFERENCE


def apply_colormap(levels: ErrorMap) -> ImageArray:
    """Maps levels in 0..1 of shape (height, width) to RGB colors."""
    import cv2

    steps = (255 * levels).round().astype(np.uint8)
    colors: ImageArray = cv2.applyColorMap(steps, cv2.COLORMAP_MAGMA)[..., ::-1]
    return colors


def sample_colormap(num_stops: int = 12) -> list[str]:
    """Returns evenly spaced colors of the map, as CSS colors."""
    colors = apply_colormap(np.linspace(0, 1, num_stops)[None])[0]
    return [f"rgb({red} {green} {blue})" for red, green, blue in colors.tolist()]


def _compute_difference(reference: ImageArray, variant: ImageArray) -> ErrorMap:
    errors: ErrorMap = np.abs(reference.astype(np.float64) - variant).max(axis=2)
    return errors


DIFFERENCE = Heatmap("absolute difference, 0 to 255", (0, 1, 4, 16, 64, 255), _compute_difference, 255)
FLIP = Heatmap("FLIP error", (0, 0.01, 0.05, 0.2, 0.5, 1), compute_error_map, 1)
