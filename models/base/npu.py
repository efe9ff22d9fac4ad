"""The types that describe what a neural processing unit (NPU) runs of a family: graphs of fixed shapes, in parts.

NPUs have little memory for one model, and the time that their compilers take grows faster than the model does.
Therefore a graph can be split between its blocks; each part is a model of its own.
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

# Limits of float16. The square of 256 overflows, so values are divided by 8 before they are squared. Adding the
# smallest positive number to a variance keeps the norm of a constant from dividing 0 by 0.
SQUARE_PRESCALE, MIN_VARIANCE = 1 / 8, 2.0**-24


@dataclass(frozen=True)
class BlockStack:
    """Consecutive blocks between which a graph can be split.

    The first input of each part is the output of the part before; all other inputs are those of the graph.

    Attributes:
        path: Path of the list of blocks in the component.
        extra_modules: Modules that run besides the blocks.
        unused_blocks: How many of the last blocks do not run.
    """

    path: str
    extra_modules: tuple[str, ...] = ()
    unused_blocks: int = 0


@dataclass(frozen=True)
class NpuSpec:
    """What an NPU runs of a family.

    Attributes:
        graphs: Graphs in the order in which they run; `NpuHost.axis_sizes` fixes their axes. The module of a graph
            with a stack is made from the component and the range of blocks that it runs.
        stacks: The block stacks of graphs, by graph name.
        host: `package.module:Class` of the `NpuHost`.
        split_half_modules: By component, the modules whose rows are reordered so that rotary embedding rotates the
            halves of a head instead of neighbouring channels. Names can begin with `*`.
        head_config_keys: Config keys of the width and of the number of heads.
        token_embedding: Component and module of the token embedding, which the host looks up.
    """

    graphs: tuple[Graph, ...]
    stacks: Mapping[str, BlockStack]
    host: str
    split_half_modules: Mapping[str, tuple[str, ...]]
    head_config_keys: tuple[str, str]
    token_embedding: tuple[str, str]

    def graph(self, name: str) -> Graph | None:
        """Returns the graph of a name, or None."""
        return next((graph for graph in self.graphs if graph.name == name), None)


@dataclass(frozen=True)
class GraphPart:
    """A graph, or some consecutive blocks of it.

    Attributes:
        name: File name without the extension.
        graph: The graph with the inputs and outputs of this part.
        blocks: The blocks that it runs; None if the graph has no stack.
    """

    name: str
    graph: Graph
    blocks: range | None = None


class NpuHost(Host, Protocol):
    """A host whose graphs have fixed shapes.

    Attributes:
        decoder_tiling: How the decoder runs in tiles; None if it decodes whole images.
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
        """Creates the host.

        Args:
            configs: Configs of the components and of the scheduler, by folder name.
            size: Height and width of all images, in pixels.
            max_prompt_tokens: Maximum number of tokens of a prompt.
            embeddings: Token embeddings, (vocabulary, width).
            tile_size: Side in pixels of the tiles that images are decoded in; None decodes them whole.
        """

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Sizes of all axes of the graphs, by name."""


def split_graph(graph: Graph, stack: BlockStack | None, block_ranges: Sequence[range]) -> list[GraphPart]:
    """Splits a graph into parts, each of which runs a range of blocks."""
    if stack is None:
        return [GraphPart(graph.name, graph)]
    if len(block_ranges) == 1:
        return [GraphPart(graph.name, graph, block_ranges[0])]
    parts = []
    for number, blocks in enumerate(block_ranges, 1):
        name = f"{graph.name}-{number}-of-{len(block_ranges)}"
        outputs = graph.outputs if number == len(block_ranges) else graph.inputs[:1]
        parts.append(GraphPart(name, replace(graph, name=name, outputs=outputs), blocks))
    return parts


def load_npu_spec(family: Family) -> NpuSpec:
    """Loads what an NPU runs of a family.

    Raises:
        UserError: NPUs are not supported for the family.
    """
    if not family.npu:
        raise UserError(f"{family.pipeline_class} is not supported on NPUs. See docs/add-a-model.md to add support.")
    module, name = family.npu.split(":")
    return cast(NpuSpec, getattr(importlib.import_module(module), name))


def with_tiled_decoder(npu: NpuSpec, host: NpuHost) -> NpuSpec:
    """Replaces the decoder's graph by the graphs of its tiles, if the host decodes in tiles."""
    if host.decoder_tiling is None:
        return npu
    graphs = [graph for graph in npu.graphs if graph.name != host.decoder_graph]
    return replace(npu, graphs=(*graphs, *host.decoder_tiling.graphs))


def load_npu_host_class(npu: NpuSpec) -> type[NpuHost]:
    """Loads the class of a family's NPU host."""
    module, name = npu.host.split(":")
    return cast(type[NpuHost], getattr(importlib.import_module(module), name))
