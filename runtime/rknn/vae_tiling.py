"""Decodes images in tiles on an NPU, with the result of decoding them whole.

The method is that of `runtime/vae_tiling.py`. Parts on an NPU have one output and fixed shapes, so each stage has two
graphs: one measures the moments of its norms and runs in every pass over the tiles; the other computes its features
and runs in a last pass, when the moments are known. All tiles, margins included, have one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.base.host import RunGraph, run_first_outputs
from ...models.base.npu import NpuHost
from ...models.base.tiling import DecoderTiling, TileStageGraphs
from ...models.shared.vae_tiling import UPSCALE
from ..vae_tiling import CONVERGENCE_TOLERANCE, Array, Tile, make_tiles, max_moment_change, pool_moments, stitch
from .part_chain import Arrays, ChainedGraphs, PartRef, RunPart


def chain_graphs(host: NpuHost, graphs: Mapping[str, Sequence[PartRef]], run_part: RunPart) -> RunGraph:
    """Returns a function that runs graphs by name, part after part, and the host's decoder in tiles if it is tiled.

    Args:
        host: The host of the graphs.
        graphs: The parts of each graph, in order.
        run_part: Runs a part by name.
    """
    chained = run_first_outputs(ChainedGraphs(graphs, run_part))
    return make_tiled_decoder(chained, host.decoder_graph, host.decoder_tiling) if host.decoder_tiling else chained


def make_tiled_decoder(
    run_graph: RunGraph, decoder: str, tiling: DecoderTiling, tolerance: float = CONVERGENCE_TOLERANCE
) -> RunGraph:
    """Returns a function that runs graphs by name, and decodes in tiles instead of running the graph `decoder`.

    Args:
        run_graph: Runs a graph by name.
        decoder: Name of the decoder's graph.
        tiling: The graphs of the tiles.
        tolerance: Passes over the tiles end when no moment changes by more.
    """

    def run_tiled(name: str, inputs: Arrays) -> Array:
        if name != decoder:
            return run_graph(name, inputs)
        features = run_graph(tiling.first_graph, inputs)
        for stage in tiling.stages:
            tiles = make_tiles(features, tiling.tile_size // UPSCALE, stage.margin, uniform=True)
            moments = _pack_moments(_converge_moments(run_graph, stage, features, tiles, tolerance))
            pieces = (run_graph(stage.graph, {"features": tile.crop(features), "moments": moments}) for tile in tiles)
            features = stitch(pieces, tiles)
        return features

    return run_first_outputs(run_tiled)


def _converge_moments(
    run_graph: RunGraph, stage: TileStageGraphs, features: Array, tiles: Sequence[Tile], tolerance: float
) -> Array:
    """Measures means and variances (num_norms, 2, num_groups) over all features.

    Those of the first norm are exact after one pass over the tiles, those of the second after two, and so on.
    """
    moments = np.ones((stage.num_norms, 2, stage.num_groups), np.float32)
    for number in range(stage.num_norms):
        previous, moments = moments, _measure_moments(run_graph, stage, features, tiles, moments if number else None)
        if number and max_moment_change(previous, moments) < tolerance:
            break
    return moments


def _measure_moments(
    run_graph: RunGraph, stage: TileStageGraphs, features: Array, tiles: Sequence[Tile], moments: Array | None
) -> Array:
    """Measures the moments of all tiles in one pass, while norms use `moments`; None: those of each tile itself."""
    use_tile_moments = np.full((1, 1, 1, 1), moments is None, np.float32)
    given = np.ones((stage.num_norms, 2, stage.num_groups), np.float32) if moments is None else moments
    measured = []
    for tile in tiles:
        inputs = {
            "features": tile.crop(features),
            "moments": _pack_moments(given),
            "weights": _make_tile_weights(tile),
            "own": use_tile_moments,
        }
        means, deviations = run_graph(stage.moments_graph, inputs).reshape(given.shape).transpose(1, 0, 2)
        measured.append(np.stack([means, np.square(deviations)], axis=1))
    return pool_moments(measured, [tile.area for tile in tiles])


def _pack_moments(moments: Array) -> Array:
    """Packs means and variances (num_norms, 2, num_groups) as a graph's input (1, num_norms · 2 · num_groups, 1, 1) of
    means and standard deviations."""
    means, variances = moments.transpose(1, 0, 2)
    return np.stack([means, np.sqrt(variances)], axis=1).reshape(1, -1, 1, 1)


def _make_tile_weights(tile: Tile) -> NDArray[np.float32]:
    """Returns weights (1, 1, height, width) of a stage's output for a tile with its margin: 0 in the margin, mean 1."""
    mask = np.outer(tile.rows.mask, tile.columns.mask).repeat(UPSCALE, 0).repeat(UPSCALE, 1)
    weights: NDArray[np.float32] = (mask / mask.mean())[None, None].astype(np.float32)
    return weights
