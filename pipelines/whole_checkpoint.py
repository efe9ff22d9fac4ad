"""Reads whole single-file checkpoints: denoiser, VAE and text encoders in one file, under the names of their releases.

What the names begin with says which component a tensor is of. Each such group must be a component of the pipeline,
weight for weight; what the file does not hold is the pipeline's. The conversions of names are those of diffusers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.safetensors_header import read_tensor_headers
from .component_conversion import (
    ConvertedComponent,
    Mismatch,
    compare_tensors,
    convert_names,
    list_convertible,
    map_tensors,
)
from .component_weights import tied_names
from .empty_modules import build_empty_module

Tensors = Mapping[str, Tensor]
DENOISER = "model.diffusion_model."
VAES = ("first_stage_model.", "vae.")
# Text encoders under the names of their class, and those that OpenCLIP named.
TEXT_ENCODERS = (
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.",
)
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.0.model.", "conditioner.embedders.1.model.")
# Anything else that text encoders are called; such a file is whole, and its encoders are not read.
UNREAD = ("conditioner.", "cond_stage_model.", "text_encoders.", "text_encoder.", "te.")
LOGIT_SCALE, PROJECTION = "logit_scale", "text_projection"  # of CLIP: what no encoder has, and what not all have
logger = logging.getLogger(__name__)


def is_whole(file: Path) -> bool:
    """Whether a file holds other components besides a denoiser."""
    return any(header.name.startswith((*VAES, *UNREAD)) for header in read_tensor_headers(file))


def convert_whole_checkpoint(file: Path, pipeline: Path) -> list[ConvertedComponent]:
    """Finds the components that a file holds, and gives their weights the names of their classes.

    Args:
        file: The safetensors file.
        pipeline: The diffusers folder that has the configs, not quantized.

    Raises:
        UserError: The file is corrupt or stored in a dtype that is not read, or something in it is no component of the
            pipeline.
    """
    tensors = map_tensors(file)
    groups = {prefix: _select(tensors, prefix) for prefix in (DENOISER, *VAES, *TEXT_ENCODERS, *OPEN_CLIP)}
    groups = {prefix: group for prefix, group in groups.items() if group}
    unread = [
        name
        for name in tensors
        if name.startswith(UNREAD) and not name.startswith(tuple(groups)) and not name.endswith(LOGIT_SCALE)
    ]
    if unread:
        raise UserError(
            f"{file} holds a text encoder under names that are not read, such as {unread[0]!r}. Give the file of the "
            "denoiser alone."
        )
    if DENOISER not in groups:
        raise UserError(f"{file} holds no denoiser: no name begins with {DENOISER!r}. Give a whole checkpoint.")
    converted: dict[str, ConvertedComponent] = {}
    for prefix, group in groups.items():
        component = _find_component(file, pipeline, prefix, group, converted)
        converted[component.component] = component
    return list(converted.values())


def _select(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _find_component(
    file: Path, pipeline: Path, prefix: str, group: Tensors, taken: Mapping[str, ConvertedComponent]
) -> ConvertedComponent:
    """Finds the component that a group of tensors is, among those that no other group was."""
    candidates = _list_diffusers(pipeline) if prefix in (DENOISER, *VAES) else _list_text_encoders(pipeline)
    mismatches: dict[str, Mismatch] = {}
    for name, module, conversions in candidates:
        if name in taken:
            continue
        for convert in conversions(prefix):
            expected = module.state_dict()
            renamed = convert(group)
            absent = tied_names(module) - renamed.keys()
            needed = {key: tensor for key, tensor in expected.items() if key not in absent}
            mismatch = compare_tensors(renamed, needed)
            if not mismatch.count:
                _warn_of_surplus(file, prefix, group, ConvertedComponent(name, type(module).__name__, renamed))
                return ConvertedComponent(name, type(module).__name__, renamed)
            mismatches[name] = min(mismatch, mismatches.get(name, mismatch), key=lambda difference: difference.count)
    if not mismatches:
        raise UserError(
            f"{file} holds {prefix}*, but {pipeline} has no component that could be that. Give another pipeline."
        )
    nearest = min(mismatches, key=lambda name: mismatches[name].count)
    raise UserError(
        f"What {file} holds as {prefix}* is not the {nearest} of {pipeline}: {mismatches[nearest]}. Give the folder of "
        "the pipeline that it was made from."
    )


def _warn_of_surplus(file: Path, prefix: str, group: Tensors, converted: ConvertedComponent) -> None:
    """Logs how many values of a group the conversion has left out: it splits and turns tensors, and loses no value."""
    shared = (LOGIT_SCALE, PROJECTION, f"{PROJECTION}.weight")  # not of every class, or made up
    numbers = [tensor.numel() for name, tensor in group.items() if not name.endswith(shared)]
    used = [tensor.numel() for name, tensor in converted.tensors.items() if not name.endswith(shared)]
    surplus = sum(numbers) - sum(used)
    if surplus > 0:
        logger.warning(
            "%s: %d values under %s* are no part of the %s, and left out.", file, surplus, prefix, converted.component
        )


Conversions = Callable[[str], Iterator[Callable[[Tensors], dict[str, Tensor]]]]


def _list_diffusers(pipeline: Path) -> Iterator[tuple[str, nn.Module, Conversions]]:
    """Yields the components of diffusers that single files can hold, with what may rename a group to their names."""
    for name, class_name in list_convertible(pipeline).items():
        config = _read_config(pipeline, name)
        module = build_empty_module("diffusers", class_name, config)

        def conversions(
            prefix: str, class_name: str = class_name, config: Mapping[str, object] = config
        ) -> Iterator[Callable[[Tensors], dict[str, Tensor]]]:
            convert = partial(convert_names, class_name, config)
            yield convert
            yield lambda group: convert(_strip(group, prefix))
            yield lambda group: _strip(group, prefix)

        yield name, module, conversions


def _list_text_encoders(pipeline: Path) -> Iterator[tuple[str, nn.Module, Conversions]]:
    """Yields the text encoders of transformers, with what may rename a group to their names."""
    for name, entry in read_json_object(pipeline / MODEL_INDEX).items():
        is_encoder = isinstance(entry, list) and entry[0] == "transformers" and name.startswith("text_encoder")
        if not is_encoder or not (pipeline / name / "config.json").is_file():
            continue
        module = build_empty_module("transformers", entry[1], _read_config(pipeline, name))

        def conversions(prefix: str, module: nn.Module = module) -> Iterator[Callable[[Tensors], dict[str, Tensor]]]:
            yield lambda group: _name_text_encoder(module, prefix, group)

        yield name, module, conversions


def _name_text_encoder(module: nn.Module, prefix: str, group: Tensors) -> dict[str, Tensor]:
    if prefix in OPEN_CLIP:
        from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

        renamed = dict(convert_open_clip_checkpoint(module, dict(group), prefix=prefix))
    else:
        renamed = _strip(group, prefix)
    expected = module.state_dict()
    if not any(name.startswith("text_model.") for name in expected):  # transformers has flattened the class
        renamed = {name.removeprefix("text_model."): tensor for name, tensor in renamed.items()}
    projection = expected.get(f"{PROJECTION}.weight")
    if projection is None:
        renamed.pop(f"{PROJECTION}.weight", None)
    elif prefix == "text_encoders.clip_l.transformer.":
        renamed[f"{PROJECTION}.weight"] = torch.eye(len(projection))  # as diffusers reads it: nothing is projected
    return renamed


def _strip(group: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in group.items()}


def _read_config(pipeline: Path, name: str) -> dict[str, object]:
    config = read_json_object(pipeline / name / "config.json")
    if "quantization_config" in config:
        raise UserError(f"{pipeline / name} is quantized. Give the pipeline in its original precision.")
    return config
