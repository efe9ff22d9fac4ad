"""What will be quantized: the blocks of a pipeline folder, checked before any long work."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.validation import format_value
from ..models.base.family import Block, Component, Family, Fold
from ..numerics.int8_rows import fits_fp16_rows
from ..pipelines.component_weights import (
    build_described_module,
    check_pipeline_weights,
    check_weights,
    find_token_embeddings,
    use_module_names,
)
from ..pipelines.config_keys import warn_about_unknown_keys
from ..pipelines.empty_modules import get_architecture
from ..pipelines.families import find_family, is_described
from ..pipelines.linear_selection import (
    BlockLinears,
    KeepReason,
    LinearSelection,
    explain_convolutions,
    find_repeated_blocks,
    select_linears,
)
from ..pipelines.scheduler_class import check_scheduler_class
from ..recipes.schema import QuantizationSettings
from ..storage.checkpoint import Checkpoint
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery
from ..storage.weight_files import find_weight_folders, get_library
from .preflight import check_component_names

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class LinearGroup:
    """Linears of a block that read the same input, and so share its statistics.

    Attributes:
        linears: Relative to the block.
        fold: The scale of their input that can be folded into the operation before them, if one can.
    """

    linears: tuple[str, ...]
    fold: Fold | None = None


def group_readers(fold: Fold) -> tuple[LinearGroup, ...]:
    """Returns the linears that a fold multiplies: several groups, of one scale, where they read different tensors."""
    return tuple(LinearGroup(linears, fold) for linears in fold.readers)


@dataclass(frozen=True)
class QuantBlock:
    """One block of a component. It is quantized, stored and resumed as a whole.

    Attributes:
        component: The component's name.
        path: The block's path in the component, such as `layers.3`.
        spec: What the family knows of such blocks: scales that fold.
        unfolded: Linears that no fold names, relative to the block. Each is a group of its own until calibration has
            seen which of them read the same input.
        idle: Linears that calibration never reached. They stay in floating point.
    """

    component: str
    path: str
    spec: Block
    unfolded: tuple[tuple[str, ...], ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.component}.{self.path}"

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The linears that are quantized, by their input."""
        folded = (group for fold in self.spec.folds for group in group_readers(fold))
        return (*folded, *map(LinearGroup, self.unfolded))

    @property
    def relative_linears(self) -> tuple[str, ...]:
        """All linears, relative to the block."""
        return (*(linear for group in self.groups for linear in group.linears), *self.idle)

    @property
    def linears(self) -> list[str]:
        """Paths of all linears in the component."""
        return [f"{self.path}.{linear}" for linear in self.relative_linears]

    def input_module(self, group: LinearGroup) -> str:
        """Returns the path of one of a group's linears; all of them read the same input."""
        return f"{self.path}.{group.linears[0]}"


@dataclass(frozen=True)
class ComponentPlan:
    """A component folder and the blocks in it.

    Attributes:
        spec: The family's description of the component.
        checkpoint: Its weights.
        config: Its config.json.
        blocks: The blocks that are quantized, in order.
        repeated: Paths of all repeated blocks, which calibration leaves on disk until they run.
        kept_linears: Why linears are not quantized, by their path.
        linear_weights: Number of weights of each linear, by its path.
        explained_convolutions: Why convolutions are not stored in 8 bits, or None if they may be, by path.
        unused_blocks: Paths of blocks whose output the pipeline never uses; they are not stored.
        surplus_names: Names of tensors that the component's class ignores; they are not stored.
    """

    spec: Component
    checkpoint: Checkpoint
    config: dict[str, Any] = field(repr=False)
    blocks: tuple[QuantBlock, ...]
    unused_blocks: tuple[str, ...]
    surplus_names: frozenset[str] = frozenset()
    repeated: tuple[str, ...] = ()
    kept_linears: Mapping[str, KeepReason] = field(default_factory=dict, repr=False)
    linear_weights: Mapping[str, int] = field(default_factory=dict, repr=False)
    explained_convolutions: Mapping[str, KeepReason | None] = field(default_factory=dict, repr=False)

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Paths of the convolutions that may be stored in 8 bits."""
        return tuple(path for path, reason in self.explained_convolutions.items() if reason is None)

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def int8_embeddings(self) -> tuple[str, ...]:
        """The token embeddings whose scales in 8 bits float16 can hold."""
        return self._select_fitting(self.spec.embeddings)

    @cached_property
    def int8_convolutions(self) -> tuple[str, ...]:
        """The convolutions whose scales in 8 bits float16 can hold."""
        return self._select_fitting(self.convolutions)

    def _select_fitting(self, modules: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in modules if fits_fp16_rows(self.checkpoint.load_tensor(f"{name}.weight")))

    @property
    def library(self) -> str:
        """The library of its class: `diffusers` or `transformers`."""
        return get_library(self.config)

    @property
    def unused_prefixes(self) -> tuple[str, ...]:
        """What the names of tensors begin with that the pipeline never uses."""
        return tuple(f"{path}." for path in (*self.unused_blocks, *self.spec.unused_modules))

    @property
    def used_tensor_names(self) -> list[str]:
        """Names of all tensors that the pipeline uses, sorted."""
        names = set(self.checkpoint.names()) - self.surplus_names
        return sorted(name for name in names if not name.startswith(self.unused_prefixes))


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything that will be quantized, in order.

    Attributes:
        source: The pipeline folder.
        family: The description of its pipeline class.
        settings: The recipe's section `quantize`.
        components: The components to quantize.
        unquantized_components: Components that only run in calibration.
    """

    source: Path
    family: Family
    settings: QuantizationSettings
    components: tuple[ComponentPlan, ...]
    unquantized_components: tuple[ComponentPlan, ...]

    @property
    def blocks(self) -> list[QuantBlock]:
        return [block for component in self.components for block in component.blocks]

    def leave_out(self, names: Collection[str]) -> QuantizationPlan:
        """Returns a plan in which some components only run in calibration."""
        components = tuple(component for component in self.components if component.name not in names)
        reference_only = tuple(component for component in self.components if component.name in names)
        return replace(
            self, components=components, unquantized_components=(*self.unquantized_components, *reference_only)
        )

    def get_component(self, name: str) -> ComponentPlan:
        return next(component for component in self.components if component.name == name)


def build_plan(source: Path, settings: QuantizationSettings) -> QuantizationPlan:
    """Plans the quantization of a pipeline folder. Of its weights, only the headers are read.

    Raises:
        UserError: Unknown pipeline or component class; weights that are unreadable, or not those that the class and
            config.json describe.
    """
    family = find_family(source)
    index = read_json_object(source / MODEL_INDEX)
    specs = [spec for spec in family.components if index.get(spec.name) != [None, None]]  # such as a left out T5
    selected = family.list_quantized(settings.components)
    check_component_names(source, family, settings)
    check_scheduler_class(source, family)
    warn_about_unknown_keys(source)
    check_pipeline_weights(source)
    if not is_described(family.pipeline_class):  # what is not quantized is left to diffusers
        specs = [spec for spec in specs if spec.name in selected]
    components = [_plan_component(source, spec, is_described(family.pipeline_class)) for spec in specs]
    quantized = tuple(component for component in components if component.name in selected)
    unquantized = tuple(component for component in components if component.name not in selected)
    return QuantizationPlan(source, family, settings, quantized, unquantized)


def check_finite_weights(source: Path, dtype: torch.dtype, progress: Progress = no_progress) -> None:
    """Reads all weights of a pipeline folder and checks them.

    Args:
        source: The pipeline's folder.
        dtype: The dtype that they are computed with in calibration.
        progress: Called with tensors.

    Raises:
        UserError: A weight is NaN, infinite or beyond the range of the dtype, or cannot be read.
    """
    for folder in find_weight_folders(source):
        Checkpoint(folder).check_finite(dtype, progress, f"checking {folder.name}")


def count_linear_weights(component: ComponentPlan) -> int:
    """Returns the number of weights in a component's linears that are quantized."""
    linears = [linear for block in component.blocks for linear in block.linears]
    return sum(math.prod(component.checkpoint.shape(f"{linear}.weight")) for linear in linears)


def _plan_component(source: Path, spec: Component, described: bool) -> ComponentPlan:
    """Plans a component.

    Args:
        described: Whether the family is described in `models`, and with it the classes that weights may be stored as.
    """
    entry = read_json_object(source / MODEL_INDEX).get(spec.name)
    if not isinstance(entry, list) or len(entry) != 2:
        raise UserError(f"{source / MODEL_INDEX} does not list the component {spec.name!r}. {advise_recovery(source)}")
    checkpoint = Checkpoint(source / spec.name, spec.weight_prefix)
    config = checkpoint.load_config()
    class_name = config.get("_class_name") or get_architecture(config)
    prefixes = {spec.model_class: ""} | dict(spec.weight_prefixes)
    if described and class_name not in prefixes:
        raise UserError(
            f"{checkpoint.folder / 'config.json'} describes {add_article(format_value(class_name))}, but "
            f"{add_article(spec.model_class)} was "
            "expected. Give another --model."
        )
    if described and entry[1] not in prefixes:
        raise UserError(
            f"{source / MODEL_INDEX} names {add_article(format_value(entry[1]))} as {spec.name}, but "
            f"{add_article(spec.model_class)} was "
            "expected. Give another --model."
        )
    checkpoint.require_supported(config)
    module = build_described_module(checkpoint, entry[0], spec.model_class, config)
    checkpoint = use_module_names(checkpoint, module)
    surplus = check_weights(checkpoint, module, config, tuple(f"{path}." for path in spec.unused_modules))
    if spec.role == "text_encoder":
        spec = replace(spec, embeddings=find_token_embeddings(module))
    if "_class_name" not in config:
        config = config | {"architectures": [spec.model_class]}  # config.json may name one with a head
    if spec.role == "other":
        reasons = _explain_convolutions(spec, checkpoint, module, ())
        return ComponentPlan(spec, checkpoint, config, (), (), surplus, explained_convolutions=reasons)
    selection = select_linears(module, spec)
    unused = _find_unused_blocks(spec, selection.repeated, checkpoint.folder)
    prefixes_of_unused = tuple(f"{path}." for path in (*unused, *spec.unused_modules))
    kept_linears = {
        path: reason for path, reason in selection.kept_linears.items() if not path.startswith(prefixes_of_unused)
    }
    blocks = tuple(_plan_blocks(spec, selection, prefixes_of_unused))
    repeated = tuple(path for path in selection.repeated if not f"{path}.".startswith(prefixes_of_unused))
    reasons = _explain_convolutions(spec, checkpoint, module, unused)
    return ComponentPlan(
        spec, checkpoint, config, blocks, unused, surplus, repeated, kept_linears, selection.weights, reasons
    )


def _explain_convolutions(
    spec: Component, checkpoint: Checkpoint, module: nn.Module, unused_blocks: Sequence[str]
) -> dict[str, KeepReason | None]:
    """Returns why convolutions are kept, or None, by path, without those that the pipeline never uses."""
    unused = tuple(f"{path}." for path in (*spec.unused_modules, *unused_blocks))
    reasons = explain_convolutions(module, find_repeated_blocks(module))
    return {
        path: reason
        for path, reason in reasons.items()
        if not path.startswith(unused) and f"{path}.weight" in checkpoint
    }


def _find_unused_blocks(spec: Component, repeated: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Finds the last copies of the last block, which are never used.

    Raises:
        UserError: There are too few copies.
    """
    if not spec.blocks or not (spec.unused_blocks or spec.num_used_blocks):
        return ()
    copies = [path for path in repeated if _matches_pattern(path, spec.blocks[-1].path)]
    count = spec.count_unused_blocks(len(copies))
    if count < 0:
        reads = f"the first {spec.num_used_blocks} are read"
        detail = reads if spec.num_used_blocks else f"the last {spec.unused_blocks} are never used"
        raise UserError(
            f"{folder} has too few of the blocks {spec.blocks[-1].path}, of which {detail}. Give another --model."
        )
    return tuple(copies[len(copies) - count :])


def _plan_blocks(spec: Component, selection: LinearSelection, unused_prefixes: tuple[str, ...]) -> Iterator[QuantBlock]:
    """Yields the blocks that are quantized: those that the family describes in its order, then the others."""
    remaining = {block.path: block for block in selection.blocks if not f"{block.path}.".startswith(unused_prefixes)}
    for described in spec.blocks:
        for path in [path for path in remaining if _matches_pattern(path, described.path)]:
            yield _plan_block(spec.name, remaining.pop(path), described)
    for path, block in remaining.items():
        yield _plan_block(spec.name, block, Block(path))


def _plan_block(component: str, block: BlockLinears, described: Block) -> QuantBlock:
    """Plans a block. Folds and chains with a linear that is not quantized cannot be used."""
    linears = set(block.linears)
    folds = tuple(fold for fold in described.folds if linears.issuperset(chain.from_iterable(fold.readers)))
    chains = tuple(chain for chain in described.chains if linears.issuperset(chain.linears))
    spec = Block(described.path, folds, chains)
    unfolded = tuple((linear,) for linear in block.linears if linear not in spec.linears)
    return QuantBlock(component, block.path, spec, unfolded)


def _matches_pattern(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern such as `layers.*`."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"\d+"), path) is not None
