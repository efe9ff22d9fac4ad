"""What will be quantized: the blocks of a pipeline folder, from its family's data, checked before any long work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import PICKLES, Checkpoint
from ..errors import UserError
from ..models import Block, Component, Family, Fold, family_of
from ..progress import Progress, silent
from ..recipe import Quantization, Scheme
from ..sources import pipeline_class


@dataclass(frozen=True)
class Unit:
    """One block: the piece of work that is solved, stored and resumed as a whole."""

    component: str
    path: str
    block: Block

    @property
    def name(self) -> str:
        return f"{self.component}.{self.path}"

    @property
    def linears(self) -> list[str]:
        """Module names within the component."""
        return [f"{self.path}.{linear}" for linear in self.block.linears]

    def input_of(self, fold: Fold) -> str:
        """The module whose input stands for what all readers of a fold read."""
        return f"{self.path}.{fold.into[0]}"


@dataclass(frozen=True)
class ComponentPlan:
    """A component folder with its weights and its units; `unread` are the paths of blocks that are not stored."""

    component: Component
    checkpoint: Checkpoint
    config: dict[str, Any] = field(repr=False)
    units: tuple[Unit, ...]
    unread: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def read_names(self) -> list[str]:
        """The names of all tensors but those that the pipeline never reads, sorted."""
        unread = tuple(f"{path}." for path in (*self.unread, *self.component.dropped))
        return sorted(name for name in self.checkpoint.names() if not name.startswith(unread))


@dataclass(frozen=True)
class Plan:
    """Everything that will be pressed, in the order of work; `others` are components that only run."""

    source: Path
    family: Family
    quantization: Quantization
    components: tuple[ComponentPlan, ...]
    others: tuple[ComponentPlan, ...]

    @property
    def units(self) -> list[Unit]:
        return [unit for component in self.components for unit in component.units]

    def component(self, name: str) -> ComponentPlan:
        return next(component for component in self.components if component.name == name)


def make_plan(source: Path, quantization: Quantization, progress: Progress = silent) -> Plan:
    """The plan for a pipeline folder; all its weights are looked at.

    Raises:
        UserError: unknown pipeline or component class, one that is only exported, unreadable or unsound weights, a
            group size or an output width that does not fit a layer.
    """
    family = family_of(pipeline_class(source))
    known = [component.name for component in family.components]
    if not any(component.blocks for component in family.components):
        raise UserError(
            f"Nothing of a {family.pipeline} can be quantized yet; 'edgepress export onnx --precision fp32' takes it "
            "as it is."
        )
    for name in quantization.components:
        if family.component(name) is None:
            raise UserError(f"{family.pipeline} has no component {name!r} to quantize; it has {', '.join(known)}.")
    parts = [_plan_component(source, component) for component in family.components]
    pressed = tuple(part for part in parts if part.name in quantization.components)
    others = tuple(part for part in parts if part.name not in quantization.components)
    for part in pressed:
        _check_component(part, quantization)
    for folder in _weight_folders(source):
        Checkpoint(folder).check_finite(progress, f"checking {folder.name}")
    return Plan(source, family, quantization, pressed, others)


def _weight_folders(source: Path) -> list[Path]:
    """The component folders that hold weights of any kind."""
    kinds = ("*.safetensors", "*.safetensors.index.json", *PICKLES)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if any(next(folder.glob(kind), None) for kind in kinds)]


def _plan_component(source: Path, component: Component) -> ComponentPlan:
    checkpoint = Checkpoint(source / component.name)
    config = checkpoint.config()
    found = config.get("_class_name") or (config.get("architectures") or [None])[0]
    prefixes = {component.model_class: ""} | dict(component.wrapped_in)
    if found not in prefixes:
        raise UserError(
            f"{checkpoint.folder / 'config.json'} is of class {found!r}, where {component.model_class!r} was expected."
        )
    if prefixes[found]:
        checkpoint = Checkpoint(source / component.name, prefixes[found])
        config = config | {"architectures": [component.model_class]}
    paths = [(path, block) for block in component.blocks for path in _copies(checkpoint, block.path)]
    read, unread = paths[: len(paths) - component.unread], paths[len(paths) - component.unread :]
    if component.blocks and not read:
        raise UserError(f"{checkpoint.folder} holds none of the blocks {[b.path for b in component.blocks]}.")
    units = tuple(Unit(component.name, path, block) for path, block in read)
    return ComponentPlan(component, checkpoint, config, units, tuple(path for path, _ in unread))


def _check_component(part: ComponentPlan, quantization: Quantization) -> None:
    """Raises UserError where a component cannot be pressed as the recipe says."""
    if "quantization_config" in part.config:
        raise UserError(f"{part.checkpoint.folder} is quantized already; give the pipeline in its original precision.")
    schemes = {"scheme": quantization.scheme} | {f"also.{name}": one for name, one in quantization.also.items()}
    for key, scheme in schemes.items():
        for unit in part.units:
            _check_unit(part.checkpoint, unit, scheme, f"quantize.{key}.group_size")


def _copies(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """The paths that match a pattern such as `layers.*`, in the order of their index."""
    expression = re.compile(re.escape(pattern).replace(r"\*", r"\d+") + r"(?=\.)")
    paths = {match.group() for name in checkpoint.names() if (match := expression.match(name))}
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path)])


def _check_unit(checkpoint: Checkpoint, unit: Unit, scheme: Scheme, key: str) -> None:
    sources = [f"{unit.path}.{fold.source}" for fold in unit.block.folds]
    for module in [*unit.linears, *sources]:
        if f"{module}.weight" not in checkpoint:
            raise UserError(f"{checkpoint.folder} lacks the weight {module}.weight; the download is incomplete.")
    for linear in unit.linears:
        _check_shape(checkpoint.shape(f"{linear}.weight"), f"{unit.component}.{linear}", scheme, key)


def _check_shape(shape: tuple[int, ...], name: str, scheme: Scheme, key: str) -> None:
    if len(shape) != 2:
        raise UserError(f"The weight of {name} has the shape {shape}, where a matrix was expected.")
    height, width = shape
    if width % scheme.group_of(width):
        raise UserError(
            f"The group size {scheme.group_size} does not divide the input width {width} of {name}; "
            f"choose a {key} of 32, 64 or 128 so that it does."
        )
    if height % 8:
        raise UserError(f"The output width {height} of {name} is no multiple of 8, as AWQ's layout needs.")
