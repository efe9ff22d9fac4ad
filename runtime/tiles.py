"""Decodes pictures in tiles, so that the decoder's memory is bounded, to the picture that is decoded whole.

What of a decoder sees the whole picture is its first stage, which runs whole at the latents' small size, and the
moments of its norms, which all tiles of a stage share: each pass over the tiles measures them, and the next one uses
what was measured. The first norm of a stage is then right, after one more pass the second, and so on; passes end where
nothing moves any more. At their borders tiles have a margin, which the convolutions do not reach beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.host import Run
from ..models.vae_tiles import SCALE, Stage, Tiles, window

Array = NDArray[np.float32]
# Runs a graph by its name and gives all its outputs.
RunAll = Callable[[str, dict[str, NDArray[Any]]], Sequence[Array]]
OWN = -1.0  # a variance that says: the tile's own
# Passes end where no mean moves by more of a standard deviation, and no variance by more of itself. Two pictures of the
# demo, of 512 and 1024 pixels, then were 57.8 dB and more from those decoded whole, and exact ones 78.
STILL = 1e-2


def in_tiles(run: RunAll, decoder: str, tiles: Tiles, side: int, still: float = STILL) -> Run:
    """A runner of graphs that decodes in tiles of `side` pixels instead of running the graph `decoder`.

    still: passes end where moments move by less; with 0 the picture is the whole one's but for rounding.
    """

    def tiled(name: str, inputs: dict[str, NDArray[Any]]) -> Array:
        if name != decoder:
            return run(name, inputs)[0]
        features = run(tiles.begin, inputs)[0]
        for stage in tiles.stages:
            features = _whole(run, stage, features, side // SCALE, still)
        return features

    return tiled


@dataclass(frozen=True)
class Span:
    """Where a tile lies along an axis: begin and end, and those of it with its margin."""

    begin: int
    end: int
    first: int
    last: int

    @property
    def inside(self) -> Array:
        """1 in the tile, 0 in its margin."""
        places = np.arange(self.first, self.last)
        return ((places >= self.begin) & (places < self.end)).astype(np.float32)


def spans(length: int, side: int, margin: int, fixed: bool = False) -> list[Span]:
    """As few as cover a length, none longer than `side`, and as even as can be; margins end where the picture does.

    fixed: all with their margins are of one size, that of the longest; at the ends margins are wider inwards.
    """
    count = -(-length // side)
    edges = [length * number // count for number in range(count + 1)]
    if not fixed:
        return [Span(begin, end, max(begin - margin, 0), min(end + margin, length)) for begin, end in pairwise(edges)]
    size = window(length, side, margin)
    firsts = [min(max(begin - margin, 0), length - size) for begin in edges[:-1]]
    return [Span(begin, end, first, first + size) for (begin, end), first in zip(pairwise(edges), firsts, strict=True)]


@dataclass(frozen=True)
class Tile:
    """Where a tile lies: its rows and its columns."""

    rows: Span
    columns: Span

    @property
    def area(self) -> int:
        return (self.rows.end - self.rows.begin) * (self.columns.end - self.columns.begin)

    def of(self, features: Array) -> Array:
        """The tile of features (1, channels, height, width), with its margin."""
        rows, columns = self.rows, self.columns
        return np.ascontiguousarray(features[:, :, rows.first : rows.last, columns.first : columns.last])


def tiles_over(features: Array, side: int, margin: int, fixed: bool = False) -> list[Tile]:
    """The tiles of features (1, channels, height, width), of at most `side` rows and columns; `fixed` as of `spans`."""
    down, across = (spans(length, side, margin, fixed) for length in features.shape[2:])
    return [Tile(rows, columns) for rows, columns in product(down, across)]


def together(pieces: Iterable[Array], tiles: Sequence[Tile]) -> Array:
    """What a stage made of tiles with their margins, one after another, put together without margins."""
    made = np.empty((0, 0, 0, 0), np.float32)
    for tile, piece in zip(tiles, pieces, strict=True):
        rows, columns = tile.rows, tile.columns
        if not made.size:
            made = np.empty((*piece.shape[:2], SCALE * tiles[-1].rows.end, SCALE * tiles[-1].columns.end), np.float32)
        made[:, :, _scaled(rows.begin, rows.end), _scaled(columns.begin, columns.end)] = piece[
            :,
            :,
            _scaled(rows.begin - rows.first, rows.end - rows.first),
            _scaled(columns.begin - columns.first, columns.end - columns.first),
        ]
    return made


def _whole(run: RunAll, stage: Stage, features: Array, side: int, still: float) -> Array:
    """What a stage makes of all features (1, channels, height, width), in tiles of `side` of them."""
    tiles = tiles_over(features, side, stage.margin)
    moments = np.full((stage.norms, 2, stage.groups), OWN, np.float32)
    for number in range(stage.norms + 1):
        made, measured = _passed(run, stage, features, moments, tiles)
        if len(tiles) == 1 or (number and moved(moments, measured) < still):
            break
        moments = measured
    return made


def _passed(run: RunAll, stage: Stage, features: Array, moments: Array, tiles: Sequence[Tile]) -> tuple[Array, Array]:
    """What all tiles make with given moments, put together, and the moments over all of them."""
    measured = []

    def pieces() -> Iterator[Array]:
        for tile in tiles:
            sides = {"rows": tile.rows.inside, "columns": tile.columns.inside}
            piece, found = run(stage.graph, {"features": tile.of(features), **sides, "moments": moments})
            measured.append(found)
            yield piece

    made = together(pieces(), tiles)
    return made, pooled(measured, [tile.area for tile in tiles])


def pooled(measured: Sequence[Array], areas: Sequence[int]) -> Array:
    """Means and variances (norms, 2, groups) over all tiles, from those of each: variances within and between them."""
    means, variances = np.asarray(measured, np.float64).transpose(2, 0, 1, 3)
    shares = np.asarray(areas)[:, None, None] / sum(areas)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + np.square(means - mean))).sum(0)
    return np.stack([mean, variance], axis=1).astype(np.float32)


def moved(before: Array, after: Array) -> float:
    """How far moments moved at most: means in standard deviations, variances in shares of themselves."""
    (means, variances), (others, spreads) = before.transpose(1, 0, 2), after.transpose(1, 0, 2)
    spreads = np.maximum(spreads, np.finfo(np.float32).tiny)
    return float(max((np.abs(others - means) / np.sqrt(spreads)).max(), np.abs(variances / spreads - 1).max()))


def _scaled(begin: int, end: int) -> slice:
    return slice(SCALE * begin, SCALE * end)
