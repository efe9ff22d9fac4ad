"""Reads single-file checkpoints: one component under the names of its original release, as ComfyUI keeps it.

The conversions of names are those of diffusers. Weights are mapped, not read, until they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.name_list import list_names
from ..storage.checkpoint import COMPONENT_PREFIXES, INNER_PREFIXES, WRAPPER_PREFIXES
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.safetensors_header import LENGTH_BYTES, read_tensor_headers
from .empty_modules import build_empty_module, resolve_class

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_LISTED = 3  # names in a message


@dataclass(frozen=True)
class ConvertedComponent:
    """A component of a single file, under the names of its class.

    Attributes:
        component: Its folder in the pipeline.
        class_name: Its class.
        tensors: Its weights by name; most of them are views of the mapped file.
    """

    component: str
    class_name: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Mismatch:
    """Why a file does not hold a component.

    Attributes:
        missing: Names of weights that the component has and the file has not.
        unknown: Names that the file has and the component has not.
        shapes: Sentences about shapes that differ.
    """

    missing: list[str]
    unknown: list[str]
    shapes: list[str]

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unknown) + len(self.shapes)

    def __str__(self) -> str:
        parts = [f"{_quote(self.missing)} missing"] if self.missing else []
        parts += [f"{_quote(self.unknown)} unknown"] if self.unknown else []
        return ", ".join([*parts, *self.shapes[:MAX_LISTED]])


def convert_single_file(file: Path, pipeline: Path, component: str | None = None) -> ConvertedComponent:
    """Finds the component that a single file holds, and gives its weights the names of the component's class.

    Args:
        file: The safetensors file.
        pipeline: The diffusers folder that has the configs, quantized or not.
        component: Its folder; None for the one that the file fits.

    Raises:
        UserError: The file is corrupt, is stored in a dtype that is not read, or does not fit a component of the
            pipeline.
    """
    tensors = _remove_prefixes(map_tensors(file))
    candidates = list_convertible(pipeline)
    if component is not None and component not in candidates:
        raise UserError(
            f"{pipeline} has no component {component!r} that diffusers reads from single files. Choose from: "
            f"{', '.join(candidates) or 'none'}."
        )
    mismatches: dict[str, Mismatch] = {}
    for name in [component] if component is not None else candidates:
        class_name = candidates[name]
        config = read_json_object(pipeline / name / "config.json")
        if "quantization_config" in config:
            raise UserError(f"{pipeline / name} is quantized. Give the pipeline in its original precision.")
        expected = build_empty_module("diffusers", class_name, config).state_dict()
        # The names may be those of the class already, which a conversion would spoil.
        for rename in (dict, partial(convert_names, class_name, config)):
            renamed = rename(tensors)
            mismatch = compare_tensors(renamed, expected)
            if not mismatch.count:
                return ConvertedComponent(name, class_name, renamed)
            mismatches[name] = min(mismatch, mismatches.get(name, mismatch), key=lambda difference: difference.count)
    if not mismatches:
        raise UserError(f"{pipeline} has no component that diffusers reads from single files. Give another pipeline.")
    nearest = min(mismatches, key=lambda name: mismatches[name].count)
    raise UserError(
        f"{file} does not hold the {nearest} of {pipeline}, {add_article(candidates[nearest])}: "
        f"{mismatches[nearest]}. Give the "
        "folder of the pipeline that it was made from; adapters and 8-bit scales are not read."
    )


def map_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, as views of the mapped file.

    Positions, which older releases stored as integers, are left out: they are computed.

    Raises:
        UserError: The file is corrupt, or has tensors in a dtype that is not read.
    """
    headers = [header for header in read_tensor_headers(file) if not header.name.endswith("position_ids")]
    unread = sorted({header.dtype for header in headers} - DTYPES.keys())
    if unread:
        raise UserError(f"{file} has weights in {unread[0]}, which is not read. Give a file in BF16, F16 or F32.")
    mapped = torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)
    with file.open("rb") as stream:
        offset = LENGTH_BYTES + int.from_bytes(stream.read(LENGTH_BYTES), "little")
    tensors = {}
    for header in headers:
        values = mapped[offset + header.start : offset + header.end]
        dtype = DTYPES[header.dtype]
        if (offset + header.start) % dtype.itemsize:
            values = values.clone()  # torch views aligned bytes only
        tensors[header.name] = values.view(dtype).view(header.shape)
    return tensors


def _remove_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes what wrappers and training scripts put before all names."""
    prefixes = (*WRAPPER_PREFIXES, *INNER_PREFIXES, *COMPONENT_PREFIXES["diffusers"])
    while prefix := next((p for p in prefixes if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def list_convertible(pipeline: Path) -> dict[str, str]:
    """The classes of the components that diffusers converts, by folder."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    classes = {}
    for name, entry in read_json_object(pipeline / MODEL_INDEX).items():
        if isinstance(entry, list) and entry[0] == "diffusers" and (pipeline / name / "config.json").is_file():
            known = {cls.__name__ for cls in resolve_class(*entry).__mro__} & SINGLE_FILE_LOADABLE_CLASSES.keys()
            if known:
                classes[name] = str(entry[1])
    return classes


def convert_names(class_name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames tensors as diffusers does; those of another component may come out as anything, or as none."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    classes = [cls.__name__ for cls in resolve_class("diffusers", class_name).__mro__]
    known = next(name for name in classes if name in SINGLE_FILE_LOADABLE_CLASSES)
    try:
        convert = SINGLE_FILE_LOADABLE_CLASSES[known]["checkpoint_mapping_fn"]
        return dict(convert(config=dict(config), checkpoint=dict(tensors)))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return dict(tensors)  # another component's names, by which it is recognized


def compare_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mismatch:
    return Mismatch(
        [name for name in expected if name not in tensors],
        [name for name in tensors if name not in expected],
        [
            f"{name!r} has the shape {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    )


def _quote(names: list[str]) -> str:
    return list_names(map(repr, names), MAX_LISTED)
