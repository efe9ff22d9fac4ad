"""AutoencoderKL's decoder in tiles on an NPU: its graphs of fixed shapes, and what the host needs to know.

Stages whose features are no larger than a tile run whole, in one graph with the first stage. Each later stage is two
graphs, because the parts of an NPU have one output: one measures the moments of its norms, the other computes features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...recipes.key_errors import RecipeValueError
from ..base.graph import Graph, Port
from ..base.tiling import DecoderTiling, TileStageGraphs
from .vae_tiling import FIRST_GRAPH, NUM_BLOCKS, UPSCALE, compute_window, plan_decoder_stages

MODULE = "edgepress.models.shared.vae_tiling_npu_graphs"


def plan_decoder_tiling(
    config: Mapping[str, Any], latents: tuple[int, int], tile_size: int | None
) -> DecoderTiling | None:
    """Plans how a decoder runs in tiles.

    Args:
        config: Config of the VAE.
        latents: Height and width of the latents.
        tile_size: Side of a tile in pixels; None for no tiles.

    Returns:
        The tiling; None if the decoder runs whole, because no tiles are wanted or images are no larger than one.

    Raises:
        RecipeValueError: The decoder has another number of blocks.
    """
    blocks = len(config["block_out_channels"])
    if tile_size is not None and blocks != NUM_BLOCKS:
        problem = f"decoding in tiles needs a decoder of {NUM_BLOCKS} blocks, but this has {blocks}. Remove the key."
        raise RecipeValueError("rknn.tile", tile_size, problem)
    later = dict(enumerate(plan_decoder_stages(config).stages, 1))
    limit = tile_size or float("inf")
    tiled = {number: stage for number, stage in later.items() if UPSCALE**number * max(latents) > limit}
    if tile_size is None or not tiled:
        return None
    stages = {
        number: TileStageGraphs(
            f"vae_make_{number}", stage.num_norms, stage.num_groups, stage.margin, f"vae_measure_{number}"
        )
        for number, stage in tiled.items()
    }
    sizes: dict[str, int] = {}
    for number, stage in stages.items():
        for axis, length in zip("hw", latents, strict=True):
            size = compute_window(UPSCALE ** (number - 1) * length, tile_size // UPSCALE, stage.margin)
            sizes |= {f"{axis}{number}": size, f"{axis.upper()}{number}": UPSCALE * size}
    first = _make_first_graph(1 + len(later) - len(tiled))
    graphs = [first, *(graph for number, stage in stages.items() for graph in _make_stage_graphs(number, stage))]
    return DecoderTiling(tile_size, first.name, tuple(stages.values()), tuple(graphs), sizes)


def _make_first_graph(num_stages: int) -> Graph:
    latents, features = Port("latents", (None, None, "h", "w")), Port("features", (None,) * 4)
    return Graph(FIRST_GRAPH, "vae", f"{MODULE}:NpuFirstStage{num_stages}", (latents,), (features,))


def _make_stage_graphs(number: int, stage: TileStageGraphs) -> tuple[Graph, Graph]:
    """Makes the graph of a stage that measures moments, and the one that computes features."""
    height, width = f"H{number}", f"W{number}"
    features = Port("features", (None, None, f"h{number}", f"w{number}"))
    moments = Port("moments", (None,) * 4)
    inputs = features, moments, Port("weights", (None, None, height, width)), Port("own", (None,) * 4)
    measured = Port("measured", (None,) * 4)
    return (
        Graph(stage.moments_graph, "vae", f"{MODULE}:TileMoments{number}", inputs, (measured,)),
        Graph(
            stage.graph,
            "vae",
            f"{MODULE}:TileDecode{number}",
            (features, moments),
            (Port("made", (None, None, height, width)),),
        ),
    )
