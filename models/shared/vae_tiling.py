"""AutoencoderKL's decoder in stages: the graphs that decode a picture in tiles, and what the host knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.graph import Graph, Port
from ..base.tiling import DecoderStages, TileStage

MODULE = "edgepress.models.shared.vae_tiling_graphs"
UPSCALE = 2  # of every stage after the first
NUM_BLOCKS = 4  # upward blocks of a decoder, and so its stages


def plan_decoder_stages(config: Mapping[str, Any]) -> DecoderStages:
    """The stages of a decoder with a config.

    Every convolution reaches a row further: two in each residual block, one after upsampling, one at the very end.
    """
    norms = 2 * (config["layers_per_block"] + 1)
    last = [number == NUM_BLOCKS - 1 for number in range(1, NUM_BLOCKS)]
    stages = [
        TileStage(_graph_name(number), norms + end, config["norm_num_groups"], -(-(1 + norms + end) // UPSCALE))
        for number, end in enumerate(last, 1)
    ]
    return DecoderStages("vae_begin", tuple(stages))


def compute_window(length: int, tile_size: int, margin: int) -> int:
    """Rows or columns of a tile of `side` with its margins, the same for all tiles; all where there are fewer."""
    return min(length, tile_size + 2 * margin)


def _graph_name(number: int) -> str:
    return f"vae_up_{number}"


def _make_up_graph(number: int) -> Graph:
    tile = Port("features", (None, None, "h", "w")), Port("rows", ("h",)), Port("columns", ("w",))
    made = Port("made", (None, None, "2*h", "2*w"))
    moments = (None, None, None)
    return Graph(
        _graph_name(number),
        "vae",
        f"{MODULE}:Up{number}",
        (*tile, Port("moments", moments)),
        (made, Port("measured", moments)),
    )


VAE_TILE_GRAPHS = (
    Graph(
        "vae_begin",
        "vae",
        f"{MODULE}:Begin",
        (Port("latents", (None, None, "h", "w")),),
        (Port("features", (None, None, "h", "w")),),
    ),
    *(_make_up_graph(number) for number in range(1, NUM_BLOCKS)),
)
