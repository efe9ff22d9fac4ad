"""What will be quantized: the blocks of a pipeline folder, checked before any long work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.family import Block, Component, Family, Fold
from ..models.registry import get_family
from ..numerics.int8_rows import fits_fp16_rows
from ..pipelines.component_weights import check_component, check_pipeline_weights
from ..pipelines.hub import read_pipeline_class
from ..recipes.schema import QuantizationSettings, Scheme
from ..storage.checkpoint import Checkpoint
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery
from ..storage.weight_files import find_weight_folders, get_library


@dataclass(frozen=True)
class QuantBlock:
    """One block of a component. It is quantized, stored and resumed as a whole.

    Attributes:
        component: The component's name.
        path: The block's path in the component, such as `layers.3`.
        spec: The family's description of such blocks.
    """

    component: str
    path: str
    spec: Block

    @property
    def name(self) -> str:
        return f"{self.component}.{self.path}"

    @property
    def linears(self) -> list[str]:
        """Paths of the linears in the component."""
        return [f"{self.path}.{linear}" for linear in self.spec.linears]

    def input_module(self, fold: Fold) -> str:
        """Returns the path of one of the fold's linears; all of them read the same input."""
        return f"{self.path}.{fold.linears[0]}"


@dataclass(frozen=True)
class ComponentPlan:
    """A component folder and the blocks in it.

    Attributes:
        spec: The family's description of the component.
        checkpoint: Its weights.
        config: Its config.json.
        blocks: The blocks that are quantized, in order.
        unused_blocks: Paths of blocks whose output the pipeline never uses; they are not stored.
        surplus_names: Names of tensors that the component's class ignores; they are not stored.
    """

    spec: Component
    checkpoint: Checkpoint
    config: dict[str, Any] = field(repr=False)
    blocks: tuple[QuantBlock, ...]
    unused_blocks: tuple[str, ...]
    surplus_names: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def int8_embeddings(self) -> tuple[str, ...]:
        """The token embeddings whose scales in 8 bits float16 can hold."""
        weights = {name: self.checkpoint.load_tensor(f"{name}.weight") for name in self.spec.embeddings}
        return tuple(name for name, weight in weights.items() if fits_fp16_rows(weight))

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

    def get_component(self, name: str) -> ComponentPlan:
        return next(component for component in self.components if component.name == name)


def build_plan(source: Path, settings: QuantizationSettings) -> QuantizationPlan:
    """Plans the quantization of a pipeline folder. Of its weights, only the headers are read.

    Raises:
        UserError: Unknown pipeline or component class, or one that can only be exported; weights that are unreadable,
            or not those that the class and config.json describe; a group size or an output width that does not fit a
            layer.
    """
    family = get_family(read_pipeline_class(source))
    if not any(component.blocks for component in family.components):
        raise UserError(
            f"{family.pipeline_class} cannot be quantized yet. To export it as it is, use "
            "'edgepress export onnx --precision fp32'."
        )
    names = [component.name for component in family.components]
    for name in settings.components:
        if name not in names:
            raise UserError(f"{family.pipeline_class} has no component {name!r}. Choose from: {', '.join(names)}.")
    check_pipeline_weights(source)
    components = [_plan_component(source, component) for component in family.components]
    for component in components:
        if component.name in settings.components:
            _check_component(component, settings)
    components = [_check_names(component) for component in components]
    quantized = tuple(component for component in components if component.name in settings.components)
    unquantized = tuple(component for component in components if component.name not in settings.components)
    return QuantizationPlan(source, family, settings, quantized, unquantized)


def check_finite_weights(source: Path, progress: Progress = no_progress) -> None:
    """Reads all weights of a pipeline folder and checks them.

    Raises:
        UserError: A weight is NaN or infinite, or cannot be read.
    """
    for folder in find_weight_folders(source):
        Checkpoint(folder).check_finite(progress, f"checking {folder.name}")


def _plan_component(source: Path, spec: Component) -> ComponentPlan:
    entry = read_json_object(source / MODEL_INDEX).get(spec.name)
    if not isinstance(entry, list) or len(entry) != 2:
        raise UserError(f"{source / MODEL_INDEX} does not list the component {spec.name!r}. {advise_recovery(source)}")
    checkpoint = Checkpoint(source / spec.name, spec.weight_prefix)
    config = checkpoint.load_config()
    class_name = config.get("_class_name") or (config.get("architectures") or [None])[0]
    prefixes = {spec.model_class: ""} | dict(spec.weight_prefixes)
    if class_name not in prefixes:
        raise UserError(
            f"{checkpoint.folder / 'config.json'} describes a {class_name}, but a {spec.model_class} was expected. "
            "Give another --model."
        )
    checkpoint.require_supported(config)
    paths = [(path, block) for block in spec.blocks for path in _expand_pattern(checkpoint, block.path)]
    num_used = len(paths) - spec.unused_blocks
    if spec.blocks and num_used <= 0:
        names = ", ".join(block.path for block in spec.blocks)
        raise UserError(f"{checkpoint.folder} has none of the blocks {names}. Give another --model.")
    blocks = tuple(QuantBlock(spec.name, path, block) for path, block in paths[:num_used])
    unused_blocks = tuple(path for path, _ in paths[num_used:])
    return ComponentPlan(spec, checkpoint, config, blocks, unused_blocks)


def _check_names(component: ComponentPlan) -> ComponentPlan:
    """Compares the weights with the family's class, and makes it the class that the config names."""
    spec, config = component.spec, component.config
    surplus = check_component(
        component.checkpoint, component.library, spec.model_class, config, component.unused_prefixes
    )
    if "_class_name" not in config:
        config = config | {"architectures": [spec.model_class]}
    return replace(component, config=config, surplus_names=surplus)


def _check_component(component: ComponentPlan, settings: QuantizationSettings) -> None:
    """Raises UserError where a component cannot be quantized as the recipe says."""
    schemes = {"scheme": settings.scheme}
    schemes |= {f"extra_schemes.{name}": scheme for name, scheme in settings.extra_schemes.items()}
    for key, scheme in schemes.items():
        for block in component.blocks:
            _check_block(component.checkpoint, block, scheme, f"quantize.{key}.group_size")


def _expand_pattern(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """Returns the paths that match a pattern such as `layers.*`, in the order of their index."""
    expression = re.compile(re.escape(pattern).replace(r"\*", r"\d+") + r"(?=\.)")
    paths = {match.group() for name in checkpoint.names() if (match := expression.match(name))}
    return sorted(paths, key=lambda path: [int(index) for index in re.findall(r"\d+", path)])


def _check_block(checkpoint: Checkpoint, block: QuantBlock, scheme: Scheme, key: str) -> None:
    for linear in block.linears:
        if f"{linear}.weight" in checkpoint:  # what is missing is named later, with what is there instead
            _check_shape(checkpoint.shape(f"{linear}.weight"), f"{block.component}.{linear}", scheme, key)


def _check_shape(shape: tuple[int, ...], name: str, scheme: Scheme, key: str) -> None:
    if len(shape) != 2:
        raise UserError(f"The weight of {name} has shape {shape}, but a matrix was expected. Download the model again.")
    out_features, in_features = shape
    if in_features % scheme.resolve_group_size(in_features):
        raise UserError(
            f"{key}: {scheme.group_size} does not divide the input width {in_features} of {name}. "
            "Choose 32, 64 or 128 so that it does."
        )
    if out_features % 8:
        raise UserError(
            f"The output width {out_features} of {name} is not a multiple of 8, as AWQ's layout requires. "
            "Leave the component out of quantize.components."
        )
