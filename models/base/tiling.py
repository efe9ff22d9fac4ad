"""The types that describe how a decoder runs in tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Graph


@dataclass(frozen=True)
class TileStage:
    """A stage of a decoder that runs tile by tile.

    Attributes:
        graph: Name of its graph.
        num_norms: Number of its group norms.
        num_groups: Number of groups in each.
        margin: Rows and columns of its input that a tile needs around it.
    """

    graph: str
    num_norms: int
    num_groups: int
    margin: int


@dataclass(frozen=True)
class DecoderStages:
    """The stages of a decoder.

    Attributes:
        first_graph: Name of the graph of the first stage, which takes all latents at once.
        stages: The stages after it, which run tile by tile.
    """

    first_graph: str
    stages: tuple[TileStage, ...]


@dataclass(frozen=True)
class TileStageGraphs(TileStage):
    """A stage that is two graphs: `graph` computes features with given moments, `moments_graph` measures moments.

    Attributes:
        moments_graph: Name of the graph that measures the moments of the stage's norms.
    """

    moments_graph: str


@dataclass(frozen=True)
class DecoderTiling:
    """How images of one size are decoded in tiles by graphs of fixed shapes.

    Attributes:
        tile_size: Side of a tile in pixels.
        first_graph: Name of the graph of the stages that run whole.
        stages: The stages after it.
        graphs: All graphs.
        axis_sizes: Sizes of their axes, by name.
    """

    tile_size: int
    first_graph: str
    stages: tuple[TileStageGraphs, ...]
    graphs: tuple[Graph, ...]
    axis_sizes: Mapping[str, int]
