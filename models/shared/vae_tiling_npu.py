"""AutoencoderKL's decoder in tiles on an NPU: graphs of fixed shapes, and what the host knows of them.

Stages whose features are no larger than a tile run whole, in one graph with the first one. Each stage after them is
two graphs, as an NPU's parts have one output: one measures the moments of its norms, one makes its features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...common.errors import UserError
from ..base.graph import Graph, Port
from ..base.tiling import DecoderTiling, TileStageGraphs
from .vae_tiling import NUM_BLOCKS, UPSCALE, compute_window, plan_decoder_stages

MODULE = "edgepress.models.shared.vae_tiling_npu_graphs"
FIRST_GRAPH = "vae_begin"


def plan_decoder_tiling(
    config: Mapping[str, Any], latents: tuple[int, int], tile_size: int | None
) -> DecoderTiling | None:
    """The tiling of a decoder with a config; None where it decodes whole, as pictures are no larger than a tile.

    Args:
        latents: their height and width. tile: side in pixels, None for none.

    Raises:
        UserError: a decoder of another form.
    """
    blocks = len(config["block_out_channels"])
    if tile_size is not None and blocks != NUM_BLOCKS:
        raise UserError(
            f"Decoders of {NUM_BLOCKS} blocks are run in tiles, and this one has {blocks}; leave rknn.tile out."
        )
    later = dict(enumerate(plan_decoder_stages(config).stages, 1))
    cut = {
        number: stage for number, stage in later.items() if UPSCALE**number * max(latents) > (tile_size or float("inf"))
    }
    if tile_size is None or not cut:
        return None
    whole = 1 + len(later) - len(cut)
    stages = {
        number: TileStageGraphs(
            f"vae_make_{number}", stage.num_norms, stage.num_groups, stage.margin, f"vae_measure_{number}"
        )
        for number, stage in cut.items()
    }
    sizes: dict[str, int] = {}
    for number, stage in stages.items():
        for axis, length in zip("hw", latents, strict=True):
            size = compute_window(UPSCALE ** (number - 1) * length, tile_size // UPSCALE, stage.margin)
            sizes |= {f"{axis}{number}": size, f"{axis.upper()}{number}": UPSCALE * size}
    graphs = [
        _make_first_graph(whole),
        *(graph for number, stage in stages.items() for graph in _make_stage_graphs(number, stage)),
    ]
    return DecoderTiling(tile_size, FIRST_GRAPH, tuple(stages.values()), tuple(graphs), sizes)


def _make_first_graph(stages: int) -> Graph:
    latents, features = Port("latents", (None, None, "h", "w")), Port("features", (None,) * 4)
    return Graph(FIRST_GRAPH, "vae", f"{MODULE}:Begin{stages}", (latents,), (features,))


def _make_stage_graphs(number: int, stage: TileStageGraphs) -> tuple[Graph, Graph]:
    """Of a stage: the graph that measures, the graph that makes."""
    high, wide = f"H{number}", f"W{number}"
    features = Port("features", (None, None, f"h{number}", f"w{number}"))
    moments = Port("moments", (None,) * 4)
    weights, own = Port("weights", (None, None, high, wide)), Port("own", (None,) * 4)
    inputs = features, moments, weights, own
    made = Port("made", (None, None, high, wide))
    measure = Graph(stage.moments_graph, "vae", f"{MODULE}:Measure{number}", inputs, (Port("measured", (None,) * 4),))
    return measure, Graph(stage.graph, "vae", f"{MODULE}:Make{number}", (features, moments), (made,))
