"""AutoencoderKL's decoder in stages, so that it can run in tiles: its graphs, and what the host needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.graph import Graph, Port
from ..base.tiling import DecoderStages, TileStage

MODULE = "edgepress.models.shared.vae_tiling_graphs"
FIRST_GRAPH = "vae_begin"
UPSCALE = 2  # factor of every stage after the first
NUM_BLOCKS = 4  # up blocks of a decoder; each is a stage


def plan_decoder_stages(config: Mapping[str, Any]) -> DecoderStages:
    """Plans the stages of a decoder.

    A tile's margin covers the receptive field of a stage: each convolution reaches one row further. There are two
    convolutions in each residual block, one after upsampling, and one at the very end.

    Args:
        config: Config of the VAE.
    """
    norms = 2 * (config["layers_per_block"] + 1)
    last = [number == NUM_BLOCKS - 1 for number in range(1, NUM_BLOCKS)]
    stages = [
        TileStage(_graph_name(number), norms + end, config["norm_num_groups"], -(-(1 + norms + end) // UPSCALE))
        for number, end in enumerate(last, 1)
    ]
    return DecoderStages(FIRST_GRAPH, tuple(stages))


def compute_window(length: int, tile_size: int, margin: int) -> int:
    """Returns the rows or columns of a tile with its margins: one size for all tiles, at most the whole length."""
    return min(length, tile_size + 2 * margin)


def _graph_name(number: int) -> str:
    return f"vae_up_{number}"


def _make_up_graph(number: int) -> Graph:
    tile = Port("features", (None, None, "h", "w")), Port("rows", ("h",)), Port("columns", ("w",))
    moments = (None, None, None)
    return Graph(
        _graph_name(number),
        "vae",
        f"{MODULE}:UpStage{number}",
        (*tile, Port("moments", moments)),
        (Port("made", (None, None, "2*h", "2*w")), Port("measured", moments)),
    )


VAE_TILE_GRAPHS = (
    Graph(
        FIRST_GRAPH,
        "vae",
        f"{MODULE}:FirstStage",
        (Port("latents", (None, None, "h", "w")),),
        (Port("features", (None, None, "h", "w")),),
    ),
    *(_make_up_graph(number) for number in range(1, NUM_BLOCKS)),
)
