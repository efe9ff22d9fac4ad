"""Finds the weights that a LoRA is for by names and shapes, from headers alone: without torch, at any size."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.name_list import MAX_LISTED, list_names
from ..models.base.family import Family
from ..models.shared.lora_bases import guess_lora_base
from ..storage.checkpoint import Checkpoint
from ..storage.safetensors_header import read_tensor_headers
from ..storage.weight_files import find_weight_folders
from .lora_files import PEFT_CONFIG, PEFT_PREFIX

logger = logging.getLogger(__name__)
FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<side>[AB])(?:\.default)?\.(?P<kind>weight|bias)")
# In names that the converters of diffusers change although they end like those of PEFT.
CONVERTED = re.compile(r"processor|query_norm|base_model|(single|double)_blocks\.|joint_blocks\.")


def check_lora_layers(file: Path, pipeline: Path, family: Family) -> None:
    """Compares the layers of a LoRA with the weights of a pipeline, as far as no names must be converted for it.

    Args:
        file: The safetensors file.
        pipeline: The pipeline's folder.
        family: Its family.

    Raises:
        UserError: None of the layers is there, or one has another shape.
    """
    shapes = {header.name: tuple(header.shape) for header in read_tensor_headers(file)}
    checkpoints = _open_checkpoints(pipeline, family)
    matches = {name: FACTOR.fullmatch(name) for name in shapes}
    if all(name.startswith(PEFT_PREFIX) for name in shapes) and not (file.parent / PEFT_CONFIG).exists():
        paths = [match["path"].removeprefix(PEFT_PREFIX) for match in matches.values() if match]
        if any(find_layer_name(weights, path, "weight") for weights in checkpoints.values() for path in paths[:1]):
            raise reject_missing_config(file)
        return
    if not all(match and match["path"].partition(".")[0] in checkpoints for match in matches.values()):
        return
    if family.denoiser not in checkpoints or any(map(CONVERTED.search, shapes)):
        return
    num_found, layers = 0, {match["path"] for match in matches.values() if match}
    for layer in sorted(layers):
        component, _, path = layer.partition(".")
        name = find_layer_name(checkpoints[component], path, "weight")
        factors = [next((s for n, s in shapes.items() if _is_factor(n, layer, side)), None) for side in "AB"]
        down, up = factors
        if name is not None and down is not None and up is not None:
            num_found += 1
            require_fitting(file, component, name, checkpoints[component], up, down)
    if not num_found and all(layer.startswith(f"{family.denoiser}.") for layer in layers):
        require_layers(file, list(shapes), num_found, pipeline, checkpoints[family.denoiser])


def reject_missing_config(file: Path) -> UserError:
    """The error for a LoRA of PEFT without its config."""
    return UserError(
        f"{file} was written by PEFT, but its {PEFT_CONFIG}, which holds its alpha, is not beside it. "
        f"Copy {PEFT_CONFIG} into {file.parent}."
    )


def _open_checkpoints(pipeline: Path, family: Family) -> Mapping[str, Checkpoint]:
    """The weights of the components that a family describes, by name."""
    prefixes = {component.name: component.weight_prefix for component in family.components}
    folders = [folder for folder in find_weight_folders(pipeline) if folder.name in prefixes]
    return {folder.name: Checkpoint(folder, prefixes[folder.name]) for folder in folders}


def _is_factor(name: str, layer: str, side: str) -> bool:
    match = FACTOR.fullmatch(name)
    return match is not None and match["path"] == layer and (match["side"], match["kind"]) == (side, "weight")


def find_layer_name(checkpoint: Checkpoint, path: str, kind: str) -> str | None:
    """The name of a layer's weight or bias, with or without what models of transformers put before it."""
    prefixes = (checkpoint.prefix, "model.", "text_model.")
    names = [f"{path}.{kind}", *(f"{path}.{kind}".removeprefix(prefix) for prefix in prefixes)]
    names += [f"{prefix}{path}.{kind}" for prefix in ("model.", "text_model.")]
    return next((name for name in names if name in checkpoint), None)


def require_layers(file: Path, unknown: Sequence[str], num_updates: int, pipeline: Path, denoiser: Checkpoint) -> None:
    """Checks that every key of a LoRA has a layer.

    Args:
        file: The LoRA.
        unknown: The keys that have none.
        num_updates: Number of weights that the others change.
        pipeline: The pipeline's folder.
        denoiser: The weights of its denoiser, whose names tell what it is.

    Raises:
        UserError: A key has none.
    """
    if not unknown:
        return
    report_unknown_keys(file, unknown)
    listed = list_keys(unknown)
    base = guess_lora_base(unknown)
    is_foreign = base and base != guess_lora_base(denoiser.names())
    if not num_updates:
        made_for = f"another base model, by its names {base}" if is_foreign else "another base model"
        raise UserError(
            f"{file} is a LoRA for {made_for}: none of its keys has a layer in {pipeline}, as diffusers reads "
            f"them ({listed}). Use a LoRA that was trained for this model."
        )
    number, suspicion = len(unknown), ""
    if is_foreign:
        suspicion = f" It looks like a LoRA for another base model, by its names {base}."
    elif number > num_updates:
        suspicion = " It looks like a LoRA for another base model, since most of its layers are not there."
    raise UserError(
        f"{number} {'key' if number == 1 else 'keys'} of {file} {'has' if number == 1 else 'have'} no layer in "
        f"{pipeline}: {listed}.{suspicion} "
        "Use a LoRA that was trained for this model."
    )


def report_unknown_keys(file: object, keys: Sequence[str]) -> None:
    """Logs all keys of a LoRA that have no layer, of which an error has room for a few."""
    for key in keys:
        logger.info("%s: no layer for the key %s", file, key)


def list_keys(keys: Sequence[str]) -> str:
    """The first keys that have no layer, and where the others are listed."""
    return list_names(keys) + (" ('edgepress quantize --verbose' lists all)" if len(keys) > MAX_LISTED else "")


def require_fitting(
    file: Path, component: str, name: str, checkpoint: Checkpoint, up: Sequence[int], down: Sequence[int] | None
) -> None:
    """Checks that the matrices of a layer fit each other and the weight that they change.

    Args:
        file: The LoRA.
        component: The component's name.
        name: The name of the weight.
        checkpoint: The component's weights.
        up: Shape (out_features, rank), or of a bias (out_features,). Convolutions have kernels behind that.
        down: Shape (rank, in_features); None for a bias.

    Raises:
        UserError: They do not.
    """
    if down is not None and (len(up) < 2 or len(down) < 2 or up[1] != down[0]):
        raise UserError(
            f"{file} is damaged: the matrices for {component}.{name} have the ranks {down[0] if down else 'none'} and "
            f"{up[1] if len(up) > 1 else 'none'}. Download it again."
        )
    changed = tuple(up[:1]) + (tuple(down[1:]) if down is not None else ())
    shape = checkpoint.shape(name)
    if _strip_ones(changed) != _strip_ones(shape) or math.prod(up[2:]) > 1:
        raise UserError(
            f"{file} is a LoRA for another base model: it changes a {component}.{name} of shape {changed}, but "
            f"that of {checkpoint.folder} has shape {shape}. Use a LoRA that was trained for this model."
        )


def _strip_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the kernels of size 1 at its end."""
    return shape if len(shape) < 3 or shape[-1] != 1 else _strip_ones(shape[:-1])
