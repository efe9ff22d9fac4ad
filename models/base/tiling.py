"""TODO"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Graph


@dataclass(frozen=True)
class TileStage:
    """A stage that takes tiles: its graph, how many norms it has in how many groups, and how many rows and columns
    of its input a tile needs around it."""

    graph: str
    num_norms: int
    num_groups: int
    margin: int


@dataclass(frozen=True)
class DecoderStages:
    """The graph of the first stage, which takes all latents at once, and the stages after it."""

    first_graph: str
    stages: tuple[TileStage, ...]


@dataclass(frozen=True)
class TileStageGraphs(TileStage):
    """A stage that takes tiles; `graph` makes features with moments that are given. measure: the graph of moments."""

    moments_graph: str


@dataclass(frozen=True)
class DecoderTiling:
    """How pictures of one size are decoded in tiles.

    tile: its side in pixels. begin: the graph of the stages that run whole. stages: those after them. graphs: all of
    them. sizes: of their axes.
    """

    tile_size: int
    first_graph: str
    stages: tuple[TileStageGraphs, ...]
    graphs: tuple[Graph, ...]
    axis_sizes: Mapping[str, int]
