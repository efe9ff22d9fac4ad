"""Decodes large pictures in overlapping tiles, so that the decoder's memory is bounded; blended so that no seam shows.

A tile's last pixels see zeros where the picture goes on, and its norms see only the tile. So where tiles overlap, one
fades into the next along a smooth ramp that begins some way inside of the border.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.host import Run

Decode = Callable[[NDArray[Any]], NDArray[np.float32]]
OVERLAP = 4  # tiles share a quarter of their side at least
BORDER = 4  # a quarter of what they share is not shown of either


def in_tiles(run: Run, graph: str, side: int) -> Run:
    """`run`, but for one graph of which the one input (1, channels, h, w) is cut into tiles of `side` at most."""

    def tiled(name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        if name != graph:
            return run(name, inputs)
        ((port, whole),) = inputs.items()
        return _blended(lambda piece: run(graph, {port: piece}), whole, side)

    return tiled


def starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a length: as few as overlap enough, evenly spread, the last flush with the end."""
    if length <= side:
        return [0]
    shared = side // OVERLAP
    count = -(-(length - shared) // (side - shared))
    return [round(number * (length - side) / (count - 1)) for number in range(count)]


def _blended(decode: Decode, whole: NDArray[Any], side: int) -> NDArray[np.float32]:
    height, width = whole.shape[2:]
    high, wide = min(side, height), min(side, width)
    tops, lefts = starts(height, side), starts(width, side)
    picture = np.zeros((0, 0, 0, 0), np.float32)
    for top, left in product(tops, lefts):
        piece = decode(np.ascontiguousarray(whole[:, :, top : top + high, left : left + wide]))
        if not picture.size:
            scale = piece.shape[2] // high
            picture = np.zeros((*piece.shape[:2], height * scale, width * scale), np.float32)
            down, across = _shares(tops, height * scale, high, scale), _shares(lefts, width * scale, wide, scale)
        rows, columns = slice(top * scale, (top + high) * scale), slice(left * scale, (left + wide) * scale)
        picture[:, :, rows, columns] += piece * down[top][:, None] * across[left]
    return picture


def _shares(begins: list[int], length: int, side: int, scale: int) -> dict[int, NDArray[np.float32]]:
    """For each tile its share in the pixels along it; the shares of all tiles in a pixel add up to 1."""
    places = {begin: slice(begin * scale, (begin + side) * scale) for begin in begins}
    windows = {begin: _window(place, length) for begin, place in places.items()}
    total = np.zeros(length)
    for begin, place in places.items():
        total[place] += windows[begin]
    return {begin: (windows[begin] / total[place]).astype(np.float32) for begin, place in places.items()}


def _window(place: slice, length: int) -> NDArray[np.float64]:
    """1 within a tile, fading as cos² to 0 at borders inside of the picture; at the picture's own it stays 1."""
    side = place.stop - place.start
    shared = side // OVERLAP
    border = shared // BORDER
    ramp = np.clip((np.arange(side) + 0.5 - border) / (shared - 2 * border), 0, 1)
    rising = np.sin(ramp * np.pi / 2) ** 2
    window = rising if place.start > 0 else np.ones(side)
    return window * rising[::-1] if place.stop < length else window
