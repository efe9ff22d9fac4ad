"""Decodes pictures in tiles on an NPU, whose parts have one output and fixed shapes, to the picture decoded whole.

The way is that of `runtime/tiles.py`, but for a graph that measures, which runs in every pass over the tiles, and one
that makes features, which runs in a last pass when moments are known. All tiles with their margins are of one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.base.host import RunGraph
from ...models.base.npu import NpuHost
from ...models.base.tiling import DecoderTiling, TileStageGraphs
from ...models.shared.vae_tiling import UPSCALE
from ..vae_tiling import CONVERGENCE_TOLERANCE, Array, Tile, make_tiles, max_moment_change, pool_moments, stitch
from .part_chain import Arrays, ChainedGraphs, PartRef, RunPart


def chain_graphs(host: NpuHost, graphs: Mapping[str, Sequence[PartRef]], run_part: RunPart) -> RunGraph:
    """Runs graphs by name, part after part, and the host's decoder in tiles where it has a tiling."""
    chains = ChainedGraphs(graphs, run_part)
    return make_tiled_decoder(chains, host.decoder_graph, host.decoder_tiling) if host.decoder_tiling else chains


def make_tiled_decoder(
    run: RunGraph, decoder: str, tiling: DecoderTiling, tolerance: float = CONVERGENCE_TOLERANCE
) -> RunGraph:
    """A runner of graphs that decodes in tiles instead of running the graph `decoder`.

    still: passes end where moments move by less.
    """

    def run_graph(name: str, inputs: Arrays) -> Array:
        if name != decoder:
            return run(name, inputs)
        features = run(tiling.first_graph, inputs)
        for stage in tiling.stages:
            tiles = make_tiles(features, tiling.tile_size // UPSCALE, stage.margin, uniform=True)
            moments = _pack_moments(_converge_moments(run, stage, features, tiles, tolerance))
            pieces = (run(stage.graph, {"features": tile.crop(features), "moments": moments}) for tile in tiles)
            features = stitch(pieces, tiles)
        return features

    return run_graph


def _converge_moments(
    run: RunGraph, stage: TileStageGraphs, features: Array, tiles: Sequence[Tile], tolerance: float
) -> Array:
    """Means and variances (norms, 2, groups) over all features: the first norm's are right after one pass over the
    tiles, the second's after two, and so on."""
    moments = np.ones((stage.num_norms, 2, stage.num_groups), np.float32)
    for number in range(stage.num_norms):
        before, moments = moments, _measure_moments(run, stage, features, tiles, None if not number else moments)
        if number and max_moment_change(before, moments) < tolerance:
            break
    return moments


def _measure_moments(
    run: RunGraph, stage: TileStageGraphs, features: Array, tiles: Sequence[Tile], moments: Array | None
) -> Array:
    """What a pass over all tiles measures where norms have some moments, or None: each tile its own."""
    own = np.full((1, 1, 1, 1), moments is None, np.float32)
    given = np.ones((stage.num_norms, 2, stage.num_groups), np.float32) if moments is None else moments
    found = []
    for tile in tiles:
        inputs = {
            "features": tile.crop(features),
            "moments": _pack_moments(given),
            "weights": _make_tile_weights(tile),
            "own": own,
        }
        means, deviations = run(stage.moments_graph, inputs).reshape(given.shape).transpose(1, 0, 2)
        found.append(np.stack([means, np.square(deviations)], axis=1))
    return pool_moments(found, [tile.area for tile in tiles])


def _pack_moments(moments: Array) -> Array:
    """Means and variances (norms, 2, groups) as the means and deviations (1, norms · 2 · groups, 1, 1) of a graph."""
    means, variances = moments.transpose(1, 0, 2)
    return np.stack([means, np.sqrt(variances)], axis=1).reshape(1, -1, 1, 1)


def _make_tile_weights(tile: Tile) -> NDArray[np.float32]:
    """(1, 1, height, width) of what a stage makes of a tile with its margin: 0 in the margin, and of mean 1."""
    inside = np.outer(tile.rows.mask, tile.columns.mask).repeat(UPSCALE, 0).repeat(UPSCALE, 1)
    weights: NDArray[np.float32] = (inside / inside.mean())[None, None].astype(np.float32)
    return weights
