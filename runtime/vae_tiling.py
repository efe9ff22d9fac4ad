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

from ..models.base.host import RunGraph
from ..models.base.tiling import DecoderStages, TileStage
from ..models.shared.vae_tiling import UPSCALE, compute_window

Array = NDArray[np.float32]
# Runs a graph by its name and gives all its outputs.
RunAll = Callable[[str, dict[str, NDArray[Any]]], Sequence[Array]]
USE_TILE_MOMENTS = -1.0  # a variance that says: the tile's own
# Passes end where no mean moves by more of a standard deviation, and no variance by more of itself. Two pictures of the
# demo, of 512 and 1024 pixels, then were 57.8 dB and more from those decoded whole, and exact ones 78.
CONVERGENCE_TOLERANCE = 1e-2


def make_tiled_decoder(
    run: RunAll, decoder: str, stages: DecoderStages, tile_size: int, tolerance: float = CONVERGENCE_TOLERANCE
) -> RunGraph:
    """A runner of graphs that decodes in tiles of `side` pixels instead of running the graph `decoder`.

    still: passes end where moments move by less; with 0 the picture is the whole one's but for rounding.
    """

    def tiled(name: str, inputs: dict[str, NDArray[Any]]) -> Array:
        if name != decoder:
            return run(name, inputs)[0]
        features = run(stages.first_graph, inputs)[0]
        for stage in stages.stages:
            features = _run_stage(run, stage, features, tile_size // UPSCALE, tolerance)
        return features

    return tiled


@dataclass(frozen=True)
class Span:
    """Where a tile lies along an axis: begin and end, and those of it with its margin."""

    begin: int
    end: int
    padded_begin: int
    padded_end: int

    @property
    def mask(self) -> Array:
        """1 in the tile, 0 in its margin."""
        places = np.arange(self.padded_begin, self.padded_end)
        return ((places >= self.begin) & (places < self.end)).astype(np.float32)


def split_axis(length: int, tile_size: int, margin: int, uniform: bool = False) -> list[Span]:
    """As few as cover a length, none longer than `side`, and as even as can be; margins end where the picture does.

    fixed: all with their margins are of one size, that of the longest; at the ends margins are wider inwards.
    """
    count = -(-length // tile_size)
    edges = [length * number // count for number in range(count + 1)]
    if not uniform:
        return [Span(begin, end, max(begin - margin, 0), min(end + margin, length)) for begin, end in pairwise(edges)]
    size = compute_window(length, tile_size, margin)
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

    def crop(self, features: Array) -> Array:
        """The tile of features (1, channels, height, width), with its margin."""
        rows, columns = self.rows, self.columns
        return np.ascontiguousarray(
            features[:, :, rows.padded_begin : rows.padded_end, columns.padded_begin : columns.padded_end]
        )


def make_tiles(features: Array, tile_size: int, margin: int, uniform: bool = False) -> list[Tile]:
    """The tiles of features (1, channels, height, width), of at most `side` rows and columns; `fixed` as of `spans`."""
    down, across = (split_axis(length, tile_size, margin, uniform) for length in features.shape[2:])
    return [Tile(rows, columns) for rows, columns in product(down, across)]


def stitch(pieces: Iterable[Array], tiles: Sequence[Tile]) -> Array:
    """What a stage made of tiles with their margins, one after another, put together without margins."""
    made = np.empty((0, 0, 0, 0), np.float32)
    for tile, piece in zip(tiles, pieces, strict=True):
        rows, columns = tile.rows, tile.columns
        if not made.size:
            made = np.empty(
                (*piece.shape[:2], UPSCALE * tiles[-1].rows.end, UPSCALE * tiles[-1].columns.end), np.float32
            )
        made[:, :, _upscaled_slice(rows.begin, rows.end), _upscaled_slice(columns.begin, columns.end)] = piece[
            :,
            :,
            _upscaled_slice(rows.begin - rows.padded_begin, rows.end - rows.padded_begin),
            _upscaled_slice(columns.begin - columns.padded_begin, columns.end - columns.padded_begin),
        ]
    return made


def _run_stage(run: RunAll, stage: TileStage, features: Array, tile_size: int, tolerance: float) -> Array:
    """What a stage makes of all features (1, channels, height, width), in tiles of `side` of them."""
    tiles = make_tiles(features, tile_size, stage.margin)
    moments = np.full((stage.num_norms, 2, stage.num_groups), USE_TILE_MOMENTS, np.float32)
    for number in range(stage.num_norms + 1):
        made, measured = _run_pass(run, stage, features, moments, tiles)
        if len(tiles) == 1 or (number and max_moment_change(moments, measured) < tolerance):
            break
        moments = measured
    return made


def _run_pass(
    run: RunAll, stage: TileStage, features: Array, moments: Array, tiles: Sequence[Tile]
) -> tuple[Array, Array]:
    """What all tiles make with given moments, put together, and the moments over all of them."""
    measured = []

    def pieces() -> Iterator[Array]:
        for tile in tiles:
            sides = {"rows": tile.rows.mask, "columns": tile.columns.mask}
            piece, found = run(stage.graph, {"features": tile.crop(features), **sides, "moments": moments})
            measured.append(found)
            yield piece

    made = stitch(pieces(), tiles)
    return made, pool_moments(measured, [tile.area for tile in tiles])


def pool_moments(measured: Sequence[Array], areas: Sequence[int]) -> Array:
    """Means and variances (norms, 2, groups) over all tiles, from those of each: variances within and between them."""
    means, variances = np.asarray(measured, np.float64).transpose(2, 0, 1, 3)
    shares = np.asarray(areas)[:, None, None] / sum(areas)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + np.square(means - mean))).sum(0)
    return np.stack([mean, variance], axis=1).astype(np.float32)


def max_moment_change(before: Array, after: Array) -> float:
    """How far moments moved at most: means in standard deviations, variances in shares of themselves."""
    (means, variances), (others, spreads) = before.transpose(1, 0, 2), after.transpose(1, 0, 2)
    spreads = np.maximum(spreads, np.finfo(np.float32).tiny)
    return float(max((np.abs(others - means) / np.sqrt(spreads)).max(), np.abs(variances / spreads - 1).max()))


def _upscaled_slice(begin: int, end: int) -> slice:
    return slice(UPSCALE * begin, UPSCALE * end)
