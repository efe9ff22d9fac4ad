"""What will be quantized: the blocks of a pipeline folder, from its family's data, checked before any long work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.family import Block, Component, Family, Fold
from ..models.registry import get_family
from ..pipelines.hub import read_pipeline_class
from ..recipes.schema import QuantizationSettings, Scheme
from ..storage.checkpoint import PICKLE_PATTERNS, Checkpoint


@dataclass(frozen=True)
class QuantBlock:
    """One block: the piece of work that is solved, stored and resumed as a whole."""

    component: str
    path: str
    spec: Block

    @property
    def name(self) -> str:
        return f"{self.component}.{self.path}"

    @property
    def linears(self) -> list[str]:
        """Module names within the component."""
        return [f"{self.path}.{linear}" for linear in self.spec.linears]

    def input_module(self, fold: Fold) -> str:
        """The module whose input stands for what all readers of a fold read."""
        return f"{self.path}.{fold.linears[0]}"


@dataclass(frozen=True)
class ComponentPlan:
    """A component folder with its weights and its units; `unread` are the paths of blocks that are not stored."""

    spec: Component
    checkpoint: Checkpoint
    config: dict[str, Any] = field(repr=False)
    blocks: tuple[QuantBlock, ...]
    unused_blocks: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def used_tensor_names(self) -> list[str]:
        """The names of all tensors but those that the pipeline never reads, sorted."""
        unread = tuple(f"{path}." for path in (*self.unused_blocks, *self.spec.unused_modules))
        return sorted(name for name in self.checkpoint.names() if not name.startswith(unread))


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything that will be pressed, in the order of work; `others` are components that only run."""

    source: Path
    family: Family
    quantization: QuantizationSettings
    components: tuple[ComponentPlan, ...]
    unquantized_components: tuple[ComponentPlan, ...]

    @property
    def blocks(self) -> list[QuantBlock]:
        return [unit for component in self.components for unit in component.blocks]

    def get_component(self, name: str) -> ComponentPlan:
        return next(component for component in self.components if component.name == name)


def build_plan(source: Path, quantization: QuantizationSettings, progress: Progress = no_progress) -> QuantizationPlan:
    """The plan for a pipeline folder; all its weights are looked at.

    Raises:
        UserError: unknown pipeline or component class, one that is only exported, unreadable or unsound weights, a
            group size or an output width that does not fit a layer.
    """
    family = get_family(read_pipeline_class(source))
    known = [component.name for component in family.components]
    if not any(component.blocks for component in family.components):
        raise UserError(
            f"Nothing of a {family.pipeline_class} can be quantized yet; 'edgepress export onnx --precision fp32' takes it "
            "as it is."
        )
    for name in quantization.components:
        if family.component(name) is None:
            raise UserError(
                f"{family.pipeline_class} has no component {name!r} to quantize; it has {', '.join(known)}."
            )
    components = [_plan_component(source, component) for component in family.components]
    quantized = tuple(part for part in components if part.name in quantization.components)
    unquantized = tuple(part for part in components if part.name not in quantization.components)
    for part in quantized:
        _check_component(part, quantization)
    for folder in _weight_folders(source):
        Checkpoint(folder).check_finite(progress, f"checking {folder.name}")
    return QuantizationPlan(source, family, quantization, quantized, unquantized)


def _weight_folders(source: Path) -> list[Path]:
    """The component folders that hold weights of any kind."""
    kinds = ("*.safetensors", "*.safetensors.index.json", *PICKLE_PATTERNS)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if any(next(folder.glob(kind), None) for kind in kinds)]


def _plan_component(source: Path, component: Component) -> ComponentPlan:
    checkpoint = Checkpoint(source / component.name)
    config = checkpoint.load_config()
    class_name = config.get("_class_name") or (config.get("architectures") or [None])[0]
    prefixes = {component.model_class: ""} | dict(component.weight_prefixes)
    if class_name not in prefixes:
        raise UserError(
            f"{checkpoint.folder / 'config.json'} is of class {class_name!r}, where {component.model_class!r} was expected."
        )
    if prefixes[class_name]:
        checkpoint = Checkpoint(source / component.name, prefixes[class_name])
        config = config | {"architectures": [component.model_class]}
    paths = [(path, block) for block in component.blocks for path in _expand_pattern(checkpoint, block.path)]
    used, unused = paths[: len(paths) - component.unused_blocks], paths[len(paths) - component.unused_blocks :]
    if component.blocks and not used:
        raise UserError(f"{checkpoint.folder} holds none of the blocks {[b.path for b in component.blocks]}.")
    units = tuple(QuantBlock(component.name, path, block) for path, block in used)
    return ComponentPlan(component, checkpoint, config, units, tuple(path for path, _ in unused))


def _check_component(component: ComponentPlan, quantization: QuantizationSettings) -> None:
    """Raises UserError where a component cannot be pressed as the recipe says."""
    if "quantization_config" in component.config:
        raise UserError(
            f"{component.checkpoint.folder} is quantized already; give the pipeline in its original precision."
        )
    schemes = {"scheme": quantization.scheme} | {
        f"also.{name}": one for name, one in quantization.extra_schemes.items()
    }
    for key, scheme in schemes.items():
        for unit in component.blocks:
            _check_block(component.checkpoint, unit, scheme, f"quantize.{key}.group_size")


def _expand_pattern(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """The paths that match a pattern such as `layers.*`, in the order of their index."""
    expression = re.compile(re.escape(pattern).replace(r"\*", r"\d+") + r"(?=\.)")
    paths = {match.group() for name in checkpoint.names() if (match := expression.match(name))}
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path)])


def _check_block(checkpoint: Checkpoint, block: QuantBlock, scheme: Scheme, key: str) -> None:
    sources = [f"{block.path}.{fold.prev_op}" for fold in block.spec.folds]
    for module in [*block.linears, *sources]:
        if f"{module}.weight" not in checkpoint:
            raise UserError(f"{checkpoint.folder} lacks the weight {module}.weight; the download is incomplete.")
    for linear in block.linears:
        _check_shape(checkpoint.shape(f"{linear}.weight"), f"{block.component}.{linear}", scheme, key)


def _check_shape(shape: tuple[int, ...], name: str, scheme: Scheme, key: str) -> None:
    if len(shape) != 2:
        raise UserError(f"The weight of {name} has the shape {shape}, where a matrix was expected.")
    height, width = shape
    if width % scheme.resolve_group_size(width):
        raise UserError(
            f"The group size {scheme.group_size} does not divide the input width {width} of {name}; "
            f"choose a {key} of 32, 64 or 128 so that it does."
        )
    if height % 8:
        raise UserError(f"The output width {height} of {name} is no multiple of 8, as AWQ's layout needs.")
