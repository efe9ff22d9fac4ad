"""AutoencoderKL's decoder in stages: the graphs that decode a picture in tiles, and what the host knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .graphs import Graph, Port

MODULE = "edgepress.models.vae_tiles_graphs"
SCALE = 2  # of every stage after the first
BLOCKS = 4  # upward blocks of a decoder, and so its stages


@dataclass(frozen=True)
class Stage:
    """A stage that takes tiles: its graph, how many norms it has in how many groups, and how many rows and columns
    of its input a tile needs around it."""

    graph: str
    norms: int
    groups: int
    margin: int


@dataclass(frozen=True)
class Tiles:
    """The graph of the first stage, which takes all latents at once, and the stages after it."""

    begin: str
    stages: tuple[Stage, ...]


def tiles_of(config: Mapping[str, Any]) -> Tiles:
    """The stages of a decoder with a config.

    Every convolution reaches a row further: two in each residual block, one after upsampling, one at the very end.
    """
    norms = 2 * (config["layers_per_block"] + 1)
    last = [number == BLOCKS - 1 for number in range(1, BLOCKS)]
    stages = [
        Stage(_name(number), norms + end, config["norm_num_groups"], -(-(1 + norms + end) // SCALE))
        for number, end in enumerate(last, 1)
    ]
    return Tiles("vae_begin", tuple(stages))


def window(length: int, side: int, margin: int) -> int:
    """Rows or columns of a tile of `side` with its margins, the same for all tiles; all where there are fewer."""
    return min(length, side + 2 * margin)


def _name(number: int) -> str:
    return f"vae_up_{number}"


def _up(number: int) -> Graph:
    tile = Port("features", (None, None, "h", "w")), Port("rows", ("h",)), Port("columns", ("w",))
    made = Port("made", (None, None, "2*h", "2*w"))
    moments = (None, None, None)
    return Graph(
        _name(number),
        "vae",
        f"{MODULE}:Up{number}",
        (*tile, Port("moments", moments)),
        (made, Port("measured", moments)),
    )


VAE_TILES = (
    Graph(
        "vae_begin",
        "vae",
        f"{MODULE}:Begin",
        (Port("latents", (None, None, "h", "w")),),
        (Port("features", (None, None, "h", "w")),),
    ),
    *(_up(number) for number in range(1, BLOCKS)),
)
