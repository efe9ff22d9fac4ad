"""AutoencoderKL's decoder in tiles on an NPU: graphs of fixed shapes, and what the host knows of them.

Stages whose features are no larger than a tile run whole, in one graph with the first one. Each stage after them is
two graphs, as an NPU's parts have one output: one measures the moments of its norms, one makes its features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .graphs import Graph, Port
from .vae_tiles import BLOCKS, SCALE, Stage, tiles_of, window

MODULE = "edgepress.models.vae_tiles_npu_graphs"
BEGIN = "vae_begin"


@dataclass(frozen=True)
class TwoGraphs(Stage):
    """A stage that takes tiles; `graph` makes features with moments that are given. measure: the graph of moments."""

    measure: str


@dataclass(frozen=True)
class Tiling:
    """How pictures of one size are decoded in tiles.

    tile: its side in pixels. begin: the graph of the stages that run whole. stages: those after them. graphs: all of
    them. sizes: of their axes.
    """

    tile: int
    begin: str
    stages: tuple[TwoGraphs, ...]
    graphs: tuple[Graph, ...]
    sizes: Mapping[str, int]


def tiling_of(config: Mapping[str, Any], latents: tuple[int, int], tile: int | None) -> Tiling | None:
    """The tiling of a decoder with a config; None where it decodes whole, as pictures are no larger than a tile.

    Args:
        latents: their height and width. tile: side in pixels, None for none.

    Raises:
        UserError: a decoder of another form.
    """
    blocks = len(config["block_out_channels"])
    if tile is not None and blocks != BLOCKS:
        raise UserError(
            f"Decoders of {BLOCKS} blocks are run in tiles, and this one has {blocks}; leave rknn.tile out."
        )
    later = dict(enumerate(tiles_of(config).stages, 1))
    cut = {number: stage for number, stage in later.items() if SCALE**number * max(latents) > (tile or float("inf"))}
    if tile is None or not cut:
        return None
    whole = 1 + len(later) - len(cut)
    stages = {
        number: TwoGraphs(f"vae_make_{number}", stage.norms, stage.groups, stage.margin, f"vae_measure_{number}")
        for number, stage in cut.items()
    }
    sizes: dict[str, int] = {}
    for number, stage in stages.items():
        for axis, length in zip("hw", latents, strict=True):
            size = window(SCALE ** (number - 1) * length, tile // SCALE, stage.margin)
            sizes |= {f"{axis}{number}": size, f"{axis.upper()}{number}": SCALE * size}
    graphs = [_begin(whole), *(graph for number, stage in stages.items() for graph in _later(number, stage))]
    return Tiling(tile, BEGIN, tuple(stages.values()), tuple(graphs), sizes)


def _begin(stages: int) -> Graph:
    latents, features = Port("latents", (None, None, "h", "w")), Port("features", (None,) * 4)
    return Graph(BEGIN, "vae", f"{MODULE}:Begin{stages}", (latents,), (features,))


def _later(number: int, stage: TwoGraphs) -> tuple[Graph, Graph]:
    """Of a stage: the graph that measures, the graph that makes."""
    high, wide = f"H{number}", f"W{number}"
    features = Port("features", (None, None, f"h{number}", f"w{number}"))
    moments = Port("moments", (None,) * 4)
    weights, own = Port("weights", (None, None, high, wide)), Port("own", (None,) * 4)
    inputs = features, moments, weights, own
    made = Port("made", (None, None, high, wide))
    measure = Graph(stage.measure, "vae", f"{MODULE}:Measure{number}", inputs, (Port("measured", (None,) * 4),))
    return measure, Graph(stage.graph, "vae", f"{MODULE}:Make{number}", (features, moments), (made,))
