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

from ..metrics import flip
from ..registry import Picture

Errors = npt.NDArray[np.float32] | npt.NDArray[np.float64]
MOST = 50_000_000  # pixels of a page that FLIP is computed for; it takes about a second a million


@dataclass(frozen=True)
class Heat:
    """A kind of heat map. ticks: the errors that its legend names."""

    title: str
    ticks: tuple[float, ...]
    errors: Callable[[Picture, Picture], Errors]  # of each pixel, 0..largest
    largest: float

    def draw(self, reference: Picture, variant: Picture) -> Picture:
        """A picture of the same size; both must have the same."""
        return coloured(self.place(self.errors(reference, variant)))

    def place(self, errors: npt.ArrayLike) -> Errors:
        """Where errors stand on the scale, 0..1."""
        shares: npt.NDArray[np.float64] = np.asarray(errors, dtype=np.float64) / self.largest
        return np.sqrt(shares)


def chosen(pixels: int) -> Heat:
    """FLIP where its package is installed and so many pixels do not take too long, else the absolute difference."""
    return FLIP if pixels <= MOST and find_spec("flip_evaluator") else DIFFERENCE


def coloured(levels: Errors) -> Picture:
    """Levels [height, width] in 0..1 as colours, RGB."""
    import cv2

    steps = (255 * levels).round().astype(np.uint8)
    mapped: Picture = cv2.applyColorMap(steps, cv2.COLORMAP_MAGMA)[..., ::-1]
    return mapped


def gradient(stops: int = 12) -> list[str]:
    """The map's colours from one end to the other, as CSS names them."""
    colours = coloured(np.linspace(0, 1, stops)[None])[0]
    return [f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist()]


def _difference(reference: Picture, variant: Picture) -> Errors:
    errors: Errors = np.abs(reference.astype(np.float64) - variant).max(axis=2)
    return errors


DIFFERENCE = Heat("absolute difference, steps of 255", (0, 1, 4, 16, 64, 255), _difference, 255)
FLIP = Heat("FLIP error", (0, 0.01, 0.05, 0.2, 0.5, 1), flip.error_map, 1)
