"""Decodes pictures in tiles on an NPU, whose parts have one output and fixed shapes, to the picture decoded whole.

The way is that of `runtime/tiles.py`, but for a graph that measures, which runs in every pass over the tiles, and one
that makes features, which runs in a last pass when moments are known. All tiles with their margins are of one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.host import Run
from ...models.npu import NpuHost
from ...models.vae_tiles import SCALE
from ...models.vae_tiles_npu import Tiling, TwoGraphs
from ..tiles import STILL, Array, Tile, moved, pooled, tiles_over, together
from .chain import Arrays, Chains, Link, RunPart


def chained(host: NpuHost, graphs: Mapping[str, Sequence[Link]], run: RunPart) -> Run:
    """Runs graphs by name, part after part, and the host's decoder in tiles where it has a tiling."""
    chains = Chains(graphs, run)
    return in_tiles(chains, host.decoder, host.tiling) if host.tiling else chains


def in_tiles(run: Run, decoder: str, tiling: Tiling, still: float = STILL) -> Run:
    """A runner of graphs that decodes in tiles instead of running the graph `decoder`.

    still: passes end where moments move by less.
    """

    def tiled(name: str, inputs: Arrays) -> Array:
        if name != decoder:
            return run(name, inputs)
        features = run(tiling.begin, inputs)
        for stage in tiling.stages:
            tiles = tiles_over(features, tiling.tile // SCALE, stage.margin, fixed=True)
            moments = _inputs(_moments(run, stage, features, tiles, still))
            pieces = (run(stage.graph, {"features": tile.of(features), "moments": moments}) for tile in tiles)
            features = together(pieces, tiles)
        return features

    return tiled


def _moments(run: Run, stage: TwoGraphs, features: Array, tiles: Sequence[Tile], still: float) -> Array:
    """Means and variances (norms, 2, groups) over all features: the first norm's are right after one pass over the
    tiles, the second's after two, and so on."""
    moments = np.ones((stage.norms, 2, stage.groups), np.float32)
    for number in range(stage.norms):
        before, moments = moments, _measured(run, stage, features, tiles, None if not number else moments)
        if number and moved(before, moments) < still:
            break
    return moments


def _measured(run: Run, stage: TwoGraphs, features: Array, tiles: Sequence[Tile], moments: Array | None) -> Array:
    """What a pass over all tiles measures where norms have some moments, or None: each tile its own."""
    own = np.full((1, 1, 1, 1), moments is None, np.float32)
    given = np.ones((stage.norms, 2, stage.groups), np.float32) if moments is None else moments
    found = []
    for tile in tiles:
        inputs = {"features": tile.of(features), "moments": _inputs(given), "weights": _weights(tile), "own": own}
        means, deviations = run(stage.measure, inputs).reshape(given.shape).transpose(1, 0, 2)
        found.append(np.stack([means, np.square(deviations)], axis=1))
    return pooled(found, [tile.area for tile in tiles])


def _inputs(moments: Array) -> Array:
    """Means and variances (norms, 2, groups) as the means and deviations (1, norms · 2 · groups, 1, 1) of a graph."""
    means, variances = moments.transpose(1, 0, 2)
    return np.stack([means, np.sqrt(variances)], axis=1).reshape(1, -1, 1, 1)


def _weights(tile: Tile) -> NDArray[np.float32]:
    """(1, 1, height, width) of what a stage makes of a tile with its margin: 0 in the margin, and of mean 1."""
    inside = np.outer(tile.rows.inside, tile.columns.inside).repeat(SCALE, 0).repeat(SCALE, 1)
    weights: NDArray[np.float32] = (inside / inside.mean())[None, None].astype(np.float32)
    return weights
