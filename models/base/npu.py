"""The vocabulary in which a family says what a neural processor (NPU) runs of it: graphs of fixed shapes, in parts.

Such processors have little memory for one model, and their compilers take time that grows faster than the model. So a
graph can be cut between its blocks; each part is a model of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .family import Family
from .graph import Graph
from .host import Host
from .tiling import DecoderTiling

# Of float16: squares are of an eighth of what is squared, as that of 256 is infinite; and above 0 by the least that it
# has, what keeps the norm of a constant from 0 / 0.
SQUARE_PRESCALE, MIN_VARIANCE = 1 / 8, 2.0**-24


@dataclass(frozen=True)
class BlockStack:
    """Blocks one after another, between which a graph can be cut.

    Each part takes as its first input what the one before gives, and all other inputs as the graph does.

    path: of their list in the component. around: modules that run besides the blocks. unread: how many of the last
    blocks are not run.
    """

    path: str
    extra_modules: tuple[str, ...] = ()
    unused_blocks: int = 0


@dataclass(frozen=True)
class NpuSpec:
    """What an NPU runs of a family.

    graphs: in the order in which they run, their axes fixed by `NpuHost.sizes`; a module of a graph with a stack is
    made from the component and the range of blocks that it runs. stacks: of graphs, by name. host:
    `package.module:Class` of an `NpuHost`. halves: by component the modules whose rows must stand as the halves of
    heads are turned, not as neighbours are; names may begin with `*`. heads: the component config's keys for the width
    and the number of heads. embeddings: component and module of the token embeddings, which the host looks up.
    """

    graphs: tuple[Graph, ...]
    stacks: Mapping[str, BlockStack]
    host: str
    split_half_modules: Mapping[str, tuple[str, ...]]
    head_config_keys: tuple[str, str]
    token_embedding: tuple[str, str]

    def graph(self, name: str) -> Graph | None:
        return next((graph for graph in self.graphs if graph.name == name), None)


@dataclass(frozen=True)
class GraphPart:
    """A graph or a run of its blocks; `name` is that of a file without its ending."""

    name: str
    graph: Graph
    blocks: range | None = None


class NpuHost(Host, Protocol):
    """A host whose graphs have fixed shapes.

    tiling: how the decoder is run in tiles, instead of the one graph; None where it decodes whole.
    """

    decoder_tiling: DecoderTiling | None

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        size: tuple[int, int],
        max_prompt_tokens: int,
        embeddings: NDArray[np.floating[Any]],
        tile_size: int | None = None,
    ) -> None:
        """size: height and width of pictures, in pixels. tokens: that a prompt may have. embeddings: (words, D).
        tile: side in pixels of the tiles that pictures are decoded in, None to decode them whole."""

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Of every axis that graphs name."""


def split_graph(graph: Graph, stack: BlockStack | None, block_ranges: Sequence[range]) -> list[GraphPart]:
    """A graph cut into runs of blocks."""
    if stack is None:
        return [GraphPart(graph.name, graph)]
    if len(block_ranges) == 1:
        return [GraphPart(graph.name, graph, block_ranges[0])]
    found = []
    for number, run in enumerate(block_ranges, 1):
        name = f"{graph.name}-{number}-of-{len(block_ranges)}"
        outputs = graph.outputs if number == len(block_ranges) else graph.inputs[:1]
        found.append(GraphPart(name, replace(graph, name=name, outputs=outputs), run))
    return found


def load_npu_spec(family: Family) -> NpuSpec:
    """What an NPU runs of a family, which names it as `module:NAME`.

    Raises:
        UserError: nothing is known of that.
    """
    if not family.npu:
        raise UserError(
            f"It is not known how an NPU runs {family.pipeline_class}; docs/add-a-model.md says how to add that."
        )
    module, name = family.npu.split(":")
    return cast(NpuSpec, getattr(importlib.import_module(module), name))


def with_tiled_decoder(npu: NpuSpec, host: NpuHost) -> NpuSpec:
    """What an NPU runs where a host's decoder is run in tiles: their graphs in the place of the decoder's."""
    if host.decoder_tiling is None:
        return npu
    graphs = [graph for graph in npu.graphs if graph.name != host.decoder_graph]
    return replace(npu, graphs=(*graphs, *host.decoder_tiling.graphs))


def load_npu_host_class(npu: NpuSpec) -> type[NpuHost]:
    """The class of a family's host, which names it as `module:class`."""
    module, name = npu.host.split(":")
    return cast(type[NpuHost], getattr(importlib.import_module(module), name))
