"""The types that describe a model family as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .graph import Graph

Role = Literal["denoiser", "text_encoder", "other"]
# Takes the component's config and the width of an input. Returns, for each of its channels, the output channel of the
# operation before it that it is linear in, or NOT_SCALED.
ChannelFunction = Callable[[dict[str, Any], int], list[int]]
NOT_SCALED = -1


@dataclass(frozen=True)
class Fold:
    """A scale s that moves from the inputs of some linears into the operation before them; the output stays the same.

    `prev_op` is divided by s, and every linear of `linears` has its input columns multiplied by s. All names are
    relative to a block.

    In joint attention, every token reads the values of two streams, and each stream has its own output. Both values are
    then divided by the same s, and both outputs multiplied.

    Attributes:
        prev_op: Module that is divided.
        linears: Linears that read its output; all of them read the same tensor.
        kind: Type of `prev_op`: `norm` is an RMSNorm or LayerNorm, whose weight and bias are divided; `rows` is a
            linear, whose output channels are.
        gqa_config_keys: With grouped-query attention, the config keys of the numbers of query heads and of key-value
            heads. Each channel of `prev_op` then feeds several query heads, and s has one value for each of its
            channels.
        channels: `package.module:function` of a `ChannelFunction`, where some outputs of `prev_op` are read otherwise
            than in their order, or not at all.
        joint_prev_op: In joint attention, the linear that makes the values of the second stream.
        joint_linears: Linears that read the tokens of the second stream.
    """

    prev_op: str
    linears: tuple[str, ...]
    kind: Literal["norm", "rows"]
    gqa_config_keys: tuple[str, str] | None = None
    channels: str = ""
    joint_prev_op: str = ""
    joint_linears: tuple[str, ...] = ()

    @property
    def prev_ops(self) -> tuple[str, ...]:
        """All modules that are divided."""
        return (self.prev_op, self.joint_prev_op) if self.joint_prev_op else (self.prev_op,)

    @property
    def readers(self) -> tuple[tuple[str, ...], ...]:
        """All linears that are multiplied, those that read the same tensor together."""
        return (self.linears, self.joint_linears) if self.joint_linears else (self.linears,)

    @property
    def divides_one_output(self) -> bool:
        """Whether the whole output of one module is divided, and nothing else."""
        return not self.channels and not self.joint_prev_op


@dataclass(frozen=True)
class ShiftChain:
    """Consecutive linears that can be scaled by a power of two, to keep float16 from overflowing between them.

    The division at one linear reaches the outputs of all later ones.

    Attributes:
        linears: Linears, in the order in which they run.
        cancelled_by_norm: Whether a norm after the chain cancels the division; otherwise the last linear multiplies it
            back.
    """

    linears: tuple[str, ...]
    cancelled_by_norm: bool = True


@dataclass(frozen=True)
class Block:
    """A repeated block.

    Attributes:
        path: Path of its copies in the component, with `*` for the index.
        folds: Scales that can be folded. They add to what is quantized in any case (see
            `pipelines.linear_selection`), and change nothing about which linears are.
        chains: Linears that can be scaled by a power of two.
    """

    path: str
    folds: tuple[Fold, ...] = ()
    chains: tuple[ShiftChain, ...] = ()

    @property
    def linears(self) -> tuple[str, ...]:
        """The linears that folds name, relative to the block."""
        return tuple(name for fold in self.folds for linears in fold.readers for name in linears)


@dataclass(frozen=True)
class Component:
    """A component of the pipeline that is quantized or carried over.

    Attributes:
        name: Name of its folder.
        model_class: Its class in diffusers or transformers.
        blocks: Repeated blocks of which something is known that shows in no class: scales that fold.
        role: What it does: a `denoiser` runs once or more in every step, a `text_encoder` reads the prompt. Both are
            quantized. `other` is not.
        kept_linears: Regular expressions; linears whose path one of them matches stay in floating point.
        quantized_linears: Regular expressions; linears whose path one of them matches are quantized although a general
            rule would keep them.
        unused_blocks: How many of the last copies of the last block compute outputs that the pipeline never reads.
            They are removed.
        num_used_blocks: How many of the first copies of the last block the pipeline uses, where it reads states between
            blocks; all others are removed. 0: see `unused_blocks`.
        unused_modules: Other modules that the pipeline never runs. They are removed as well.
        weight_prefixes: Pairs of a class that config.json may name instead and the prefix that its tensor names have.
        embeddings: Token embeddings, which can be stored in 8 bits.
    """

    name: str
    model_class: str
    blocks: tuple[Block, ...] = ()
    role: Role = "other"
    kept_linears: tuple[str, ...] = ()
    quantized_linears: tuple[str, ...] = ()
    unused_blocks: int = 0
    num_used_blocks: int = 0
    unused_modules: tuple[str, ...] = ()
    weight_prefixes: tuple[tuple[str, str], ...] = ()
    embeddings: tuple[str, ...] = ()

    def count_unused_blocks(self, num_blocks: int) -> int:
        """Counts the last copies of the last block that the pipeline never uses; below 0 if there are too few copies.

        Args:
            num_blocks: Number of copies.
        """
        unused = num_blocks - self.num_used_blocks if self.num_used_blocks else self.unused_blocks
        return unused if 0 < unused < num_blocks else -1

    @property
    def weight_prefix(self) -> str:
        """The prefix that tensor names may have; empty if there is none."""
        return next((prefix for _, prefix in self.weight_prefixes), "")


@dataclass(frozen=True)
class Family:
    """A pipeline class.

    Attributes:
        pipeline_class: Class name of the pipeline in diffusers.
        denoiser: Component that runs first in every step; the others run before or after the loop.
        components: All components that are quantized or exported.
        graphs: Graphs that are exported, in the order in which they run.
        optional_graphs: Graphs that are exported only on request.
        host: `package.module:Class` of the family's `Host`. A family without one is exported, but edgepress cannot
            generate images with it.
        reference: `package.module:function` of the `ComponentReference` that the graphs are verified against, with
            inputs that the host makes.
        observer: `package.module:function` of the `PipelineObserver` that they are verified against, if there is no
            `reference`.
        uses_chat_template: Whether the pipeline passes prompts to its tokenizer as messages of a chat.
        passes_mu: Whether the pipeline always passes its scheduler a shift `mu`.
        patch_size: Without a host, the rows and columns of latents in a patch; image sides are multiples of it.
        max_patches_key: Without a host, the denoiser's config key with the size of its position table: the largest
            number of patches in a row or a column. Empty: there is no table.
        npu: `package.module:NAME` of the family's `NpuSpec`, if NPUs are supported.
    """

    pipeline_class: str
    denoiser: str
    components: tuple[Component, ...] = field(default=())
    graphs: tuple[Graph, ...] = ()
    optional_graphs: tuple[Graph, ...] = ()
    host: str = ""
    reference: str = ""
    observer: str = ""
    uses_chat_template: bool = False
    passes_mu: bool = False
    patch_size: int = 0
    max_patches_key: str = ""
    npu: str = ""

    @property
    def denoisers(self) -> tuple[str, ...]:
        """Names of the components that run in denoising steps."""
        return tuple(component.name for component in self.components if component.role == "denoiser")

    def list_quantized(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Lists the components to quantize.

        Args:
            names: Those that a recipe names; None: the denoisers and text encoders.
        """
        return tuple(part.name for part in self.components if part.role != "other") if names is None else names

    def component(self, name: str) -> Component | None:
        """Returns the component of a name, or None."""
        return next((component for component in self.components if component.name == name), None)

    def graph(self, name: str) -> Graph | None:
        """Returns the graph of a name, or None."""
        return next((graph for graph in self.graphs if graph.name == name), None)
