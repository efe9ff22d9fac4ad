"""Merges LoRAs into weights while they are read: each weight is changed when it is loaded, so memory does not grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.name_list import list_names
from ..models.shared.lora_bases import guess_lora_base
from ..storage.checkpoint import Checkpoint
from .hub import read_pipeline_class
from .lora_conversion import convert_lora, get_lora_loader
from .lora_files import PEFT_PREFIX, LoraScaling, LoraSpec, read_lora
from .lora_names import FACTOR, find_layer_name, reject_missing_config, require_fitting, require_layers

MAX_ADDED = 1e9  # to a weight; squares of larger ones leave float32 when errors are summed


@dataclass(frozen=True)
class LoraUpdate:
    """What a LoRA adds to a weight or a bias.

    Attributes:
        up: (out_features, rank), or of a bias (out_features,). Convolutions have kernels behind that.
        down: (rank, in_features); None for a bias.
        scale: Factor of the product.
    """

    up: Tensor
    down: Tensor | None
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.up.shape[:1]) + (tuple(self.down.shape[1:]) if self.down is not None else ())

    def compute(self) -> Tensor:
        """The update, in float32."""
        if self.down is None:
            return self.scale * self.up.float()
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(self.shape)


class _Layers(NamedTuple):
    """The layers of a LoRA: updates by component and name of a weight, and keys that have no layer in the pipeline."""

    updates: dict[tuple[str, str], LoraUpdate]
    unknown: list[str]


def merge_loras(
    specs: Sequence[LoraSpec], pipeline: Path, checkpoints: Mapping[str, Checkpoint]
) -> dict[str, Checkpoint]:
    """Returns the checkpoints of a pipeline's components with LoRAs in their weights. Only the LoRAs are read.

    A weight is the sum of the stored one and all updates, computed in float32 and rounded once to its stored dtype.

    Args:
        specs: The LoRAs.
        pipeline: The pipeline's folder.
        checkpoints: The weights of components by name.

    Returns:
        The checkpoints that a LoRA changes, by component.

    Raises:
        UserError: A LoRA cannot be read, is for another base model, or has keys without a layer.
    """
    updates: dict[str, dict[str, list[LoraUpdate]]] = {}
    for spec in specs:
        layers = _read_layers(spec, pipeline, checkpoints)
        denoiser = checkpoints[_find_denoiser(read_pipeline_class(pipeline), checkpoints)]
        require_layers(spec.file, layers.unknown, len(layers.updates), pipeline, denoiser)
        for (component, name), update in layers.updates.items():
            scaled = replace(update, scale=update.scale * spec.weight)
            _check_update(spec.file, component, name, scaled, checkpoints[component])
            updates.setdefault(component, {}).setdefault(name, []).append(scaled)
    return {
        component: checkpoints[component].with_changes(
            {name: partial(_add_updates, f"{component}.{name}", added) for name, added in by_name.items()}
        )
        for component, by_name in updates.items()
    }


def _add_updates(name: str, updates: Sequence[LoraUpdate], weight: Tensor) -> Tensor:
    total = weight.float()
    for update in updates:
        total = total + update.compute().reshape(weight.shape)
    merged = total.to(weight.dtype)
    if not all(math.isfinite(value) for value in merged.aminmax()):
        raise UserError(
            f"With its LoRA, the weight {name} exceeds the range of {str(weight.dtype).removeprefix('torch.')}. "
            "Give the LoRA a smaller weight, such as PATH:0.5."
        )
    return merged


def _read_layers(spec: LoraSpec, pipeline: Path, checkpoints: Mapping[str, Checkpoint]) -> _Layers:
    pipeline_class = read_pipeline_class(pipeline)
    denoiser = _find_denoiser(pipeline_class, checkpoints)
    content = read_lora(spec.file)
    if next(iter(content.tensors)).startswith(PEFT_PREFIX):
        tensors = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in content.tensors.items()}
        component = _find_component(tensors, [denoiser, *checkpoints], checkpoints)
        if content.peft_config is not None:
            scaling = {component or denoiser: LoraScaling.from_config(content.peft_config, spec.file)}
            tensors = {f"{component or denoiser}.{name}": tensor for name, tensor in tensors.items()}
            return _pair(tensors, scaling, denoiser, checkpoints)
        if component is not None:
            raise reject_missing_config(spec.file)
    denoiser_config, base = checkpoints[denoiser].load_config(), guess_lora_base(checkpoints[denoiser].names())
    converted = convert_lora(content.tensors, pipeline_class, denoiser_config, spec.file, base)
    scaling = {name: LoraScaling.from_config(config, spec.file) for name, config in content.configs.items()}
    for component in {name.partition(".")[0] for name in converted.alphas}:
        prefix = f"{component}."
        alphas = {n.removeprefix(prefix): a for n, a in converted.alphas.items() if n.startswith(prefix)}
        scaling.setdefault(component, LoraScaling(alphas=alphas))
    layers = _pair(converted.tensors, scaling, denoiser, checkpoints)
    return layers._replace(unknown=[*layers.unknown, *converted.lost])


def _find_denoiser(pipeline_class: str, checkpoints: Mapping[str, Checkpoint]) -> str:
    """The component that LoRAs of a pipeline class are for in the first place."""
    loadable = [*get_lora_loader(pipeline_class)._lora_loadable_modules, "transformer", "unet"]
    return next((name for name in loadable if name in checkpoints), next(iter(checkpoints)))


def _find_component(
    tensors: Mapping[str, Tensor], names: Sequence[str], checkpoints: Mapping[str, Checkpoint]
) -> str | None:
    """The first component that has the first layer of a LoRA."""
    match = next((match for name in tensors if (match := FACTOR.fullmatch(name))), None)
    path = match["path"] if match else ""
    return next((name for name in names if find_layer_name(checkpoints[name], path, "weight")), None)


def _pair(
    tensors: Mapping[str, Tensor],
    scaling: Mapping[str, LoraScaling],
    denoiser: str,
    checkpoints: Mapping[str, Checkpoint],
) -> _Layers:
    """Pairs the matrices of each layer, and finds the weight that they are for."""
    factors: dict[tuple[str, str], dict[str, str]] = {}  # by component and path: the key of each factor
    unknown = []
    for key in tensors:
        match = FACTOR.fullmatch(key)
        if not match or (match["side"], match["kind"]) == ("A", "bias"):
            unknown.append(key)
            continue
        component, _, path = match["path"].partition(".")
        if component not in checkpoints:  # names without a component are the denoiser's
            component, path = denoiser, match["path"]
        factors.setdefault((component, path), {})[f"{match['side']}.{match['kind']}"] = key
    updates = {}
    for (component, path), keys in factors.items():
        name = find_layer_name(checkpoints[component], path, "weight")
        bias = find_layer_name(checkpoints[component], path, "bias")
        if name is not None and "B.bias" in keys and bias is None:
            raise UserError(
                f"The LoRA has a bias for {component}.{path}, which has none in {checkpoints[component].folder}. Use a "
                "LoRA that was trained for this model, or without biases."
            )
        if name is None:
            unknown += keys.values()
            continue
        if missing := sorted({"A.weight", "B.weight"} - keys.keys()):
            raise UserError(
                f"The LoRA has {list_names(keys.values())}, but no lora_{missing[0]} of that layer: it is incomplete. "
                "Download it again, or save it again with all its layers."
            )
        down, up = tensors[keys["A.weight"]], tensors[keys["B.weight"]]
        scale = scaling.get(component, LoraScaling()).get_scale(path, down.shape[0])
        updates[component, name] = LoraUpdate(up, down, scale)
        if "B.bias" in keys and bias is not None:
            updates[component, bias] = LoraUpdate(tensors[keys["B.bias"]], None, scale)
    return _Layers(updates, unknown)


def _check_update(file: Path, component: str, name: str, update: LoraUpdate, checkpoint: Checkpoint) -> None:
    """Raises UserError where an update does not fit its weight, or is not finite."""
    down = None if update.down is None else tuple(update.down.shape)
    require_fitting(file, component, name, checkpoint, tuple(update.up.shape), down)
    factors = [update.up] if update.down is None else [update.up, update.down]
    if not all(bool(torch.isfinite(factor.float()).all()) for factor in factors):
        raise UserError(f"{file} contains NaN or an infinite value for {component}.{name}. Download it again.")
    if not _bound(update) <= MAX_ADDED:
        largest = float(update.compute().abs().max())
        if not largest <= MAX_ADDED:
            raise UserError(
                f"{file} adds values up to {largest:.3g} to {component}.{name}, which no model has. Give it a smaller "
                "weight: PATH:0.5."
            )


def _bound(update: LoraUpdate) -> float:
    """What no value of an update exceeds; it costs less than the update."""
    largest = float(update.up.abs().max()) * abs(update.scale)
    if update.down is not None:
        largest *= float(update.down.abs().max()) * update.down.shape[0]
    return largest
