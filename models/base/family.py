"""The vocabulary in which a family is described."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .graph import Graph


@dataclass(frozen=True)
class Fold:
    """A scale that moves, with no change of the output, from the inputs of some linears into what comes before them.

    `source` is divided by s and every one of `into` has its input columns multiplied by s. A `norm` source is an
    RMSNorm's weight; a `rows` source is a linear whose output channels are divided. All names are relative to a block.

    Where `source` feeds several heads of `into` (grouped-query attention: values are shared by a group of query heads),
    `shared_heads` names the config keys (query heads, key-value heads): s is then one for each channel of the source.
    """

    prev_op: str
    linears: tuple[str, ...]
    kind: Literal["norm", "rows"]
    gqa_config_keys: tuple[str, str] | None = None


@dataclass(frozen=True)
class ShiftChain:
    """Linears one after another through which a power of two may travel, to keep float16 from overflowing in between.

    What is divided out at one linear reaches the outputs of all later ones. At the end a norm cancels it, or, with
    `cancelled` False, the last linear multiplies it back.
    """

    linears: tuple[str, ...]
    cancelled_by_norm: bool = True


@dataclass(frozen=True)
class Block:
    """A repeated block: where its copies stand in the component (`*` is the index) and how its scales fold.

    The linears of a block that are quantized are exactly those that some fold leads into.
    """

    path: str
    folds: tuple[Fold, ...]
    chains: tuple[ShiftChain, ...] = ()

    @property
    def linears(self) -> tuple[str, ...]:
        return tuple(name for fold in self.folds for name in fold.linears)


@dataclass(frozen=True)
class Component:
    """A part of the pipeline that is pressed: its folder's name, the class, and its blocks.

    unread: how many of the last copies of the last block compute what the pipeline never reads; they are dropped.
    dropped: other modules that the pipeline never runs; they are dropped too.
    wrapped_in: classes that a folder's config may name instead, each with what its tensors' names then begin with.
    embeddings: token embeddings, which may be stored in 8 bits.
    """

    name: str
    model_class: str
    blocks: tuple[Block, ...]
    unused_blocks: int = 0
    unused_modules: tuple[str, ...] = ()
    weight_prefixes: tuple[tuple[str, str], ...] = ()
    embeddings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A pipeline class and its components; `denoiser` names the one that runs once a step, the others run before it.

    graphs: what is exported, in the order in which a device runs it. more: what is exported where it is asked for.
    host: `package.module:Class` of what the device computes around them; a family without one is exported, and nothing
    here paints with it. reference: `package.module:function` of what the components answer in torch, a `Reference` with
    a host and an `Observer` without. patch: without a host, the rows and columns of latents that a picture's sides are
    multiples of. npu: `package.module:NAME` of what a neural processor runs of it, where that is known.
    """

    pipeline_class: str
    denoiser: str
    components: tuple[Component, ...] = field(default=())
    graphs: tuple[Graph, ...] = ()
    optional_graphs: tuple[Graph, ...] = ()
    host: str = ""
    reference: str = ""
    patch_size: int = 0
    npu: str = ""

    def component(self, name: str) -> Component | None:
        return next((component for component in self.components if component.name == name), None)

    def graph(self, name: str) -> Graph | None:
        return next((graph for graph in self.graphs if graph.name == name), None)
