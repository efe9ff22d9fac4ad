"""Where two pictures differ, as a picture in the colours of the map `magma`: by FLIP, or by absolute difference.

FLIP says what an eye would see. The absolute difference needs no package and takes no time; of each pixel the channel
that differs most counts. Either scale is that of the square root, so that one step of 255 is still seen, and the same
for all pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ..images.types import ImageArray
from ..metrics import flip

ErrorMap = npt.NDArray[np.float32] | npt.NDArray[np.float64]
MAX_FLIP_PIXELS = 50_000_000  # pixels of a page that FLIP is computed for; it takes about a second a million


@dataclass(frozen=True)
class Heatmap:
    """A kind of heat map. ticks: the errors that its legend names."""

    title: str
    ticks: tuple[float, ...]
    compute_errors: Callable[[ImageArray, ImageArray], ErrorMap]  # of each pixel, 0..largest
    max_error: float

    def render(self, reference: ImageArray, variant: ImageArray) -> ImageArray:
        """A picture of the same size; both must have the same."""
        return apply_colormap(self.to_scale(self.compute_errors(reference, variant)))

    def to_scale(self, errors: npt.ArrayLike) -> ErrorMap:
        """Where errors stand on the scale, 0..1."""
        shares: npt.NDArray[np.float64] = np.asarray(errors, dtype=np.float64) / self.max_error
        return np.sqrt(shares)


def select_heatmap(pixels: int) -> Heatmap:
    """FLIP where its package is installed and so many pixels do not take too long, else the absolute difference."""
    return FLIP if pixels <= MAX_FLIP_PIXELS and find_spec("flip_evaluator") else DIFFERENCE


def apply_colormap(levels: ErrorMap) -> ImageArray:
    """Levels [height, width] in 0..1 as colours, RGB."""
    import cv2

    steps = (255 * levels).round().astype(np.uint8)
    mapped: ImageArray = cv2.applyColorMap(steps, cv2.COLORMAP_MAGMA)[..., ::-1]
    return mapped


def sample_colormap(stops: int = 12) -> list[str]:
    """The map's colours from one end to the other, as CSS names them."""
    colours = apply_colormap(np.linspace(0, 1, stops)[None])[0]
    return [f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist()]


def _difference(reference: ImageArray, variant: ImageArray) -> ErrorMap:
    errors: ErrorMap = np.abs(reference.astype(np.float64) - variant).max(axis=2)
    return errors


DIFFERENCE = Heatmap("absolute difference, steps of 255", (0, 1, 4, 16, 64, 255), _difference, 255)
FLIP = Heatmap("FLIP error", (0, 0.01, 0.05, 0.2, 0.5, 1), flip.compute_error_map, 1)
