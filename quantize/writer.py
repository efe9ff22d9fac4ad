"""Writing the pressed pipeline: a diffusers folder in which solved blocks replace the original weights.

Solutions on further grids stand beside the components, in `solutions/NAME/COMPONENT`: only what was solved, with the
scheme and, where it rounds activations, what every linear loses and which ones were kept in floats for that.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.progress import Progress, no_progress
from ..numerics.awq_packing import AwqTensors
from ..numerics.int8_rows import Int8Rows, quantize_rows
from ..recipes.schema import PRIMARY, Scheme
from ..storage.checkpoint import PICKLE_PATTERNS, write_sharded
from ..storage.files import write_json
from ..storage.manifest import FileRecord
from .plan import ComponentPlan, QuantizationPlan
from .workspace import Workspace

AWQ_TENSOR_NAMES = AwqTensors._fields
ROWS_PER_CHUNK = 8192  # of an embedding, put into 8 bits at once
WEIGHT_FILE_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


def save_quantized_pipeline(
    plan: QuantizationPlan,
    sources: Sequence[FileRecord],
    workspace: Workspace,
    dtype: torch.dtype,
    progress: Progress = no_progress,
) -> None:
    """Puts the pressed pipeline together in the work folder; what is not pressed is copied as it is.

    Args:
        dtype: what the reference computes in; matrices that keep their precision are stored no wider than that.
    """
    shutil.rmtree(workspace.model_folder, ignore_errors=True)
    for file in sources:
        if not _is_regenerated(plan, Path(file.path)):
            (workspace.model_folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plan.source / file.path, workspace.model_folder / file.path)
    for part in plan.components:
        config = part.config | {"quantization_config": quantization_config(part, plan)}
        tensors = _with_progress(quantized_tensors(part, plan, workspace, dtype), part, progress)
        _write_component(workspace.model_folder / part.name, part, tensors, config)
        for name, scheme in plan.quantization.extra_schemes.items() if part.blocks else ():
            folder = workspace.model_folder / "solutions" / name / part.name
            config = _solution_config(part, workspace, name, scheme)
            _write_component(folder, part, solved_tensors(part, workspace, name), config)


def _write_component(
    folder: Path, part: ComponentPlan, tensors: Iterator[tuple[str, Tensor]], config: dict[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_sharded(tensors, folder, WEIGHT_FILE_STEMS["diffusers" if "_class_name" in part.config else "transformers"])
    write_json(config, folder / "config.json")


def _with_progress(
    tensors: Iterator[tuple[str, Tensor]], part: ComponentPlan, progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors, with word of how many have passed."""
    total = len(part.used_tensor_names) + (len(AWQ_TENSOR_NAMES) - 1) * sum(len(unit.linears) for unit in part.blocks)
    for number, tensor in enumerate(tensors, 1):
        yield tensor
        progress(f"writing {part.name}", min(number, total), total)


def quantized_tensors(
    part: ComponentPlan, plan: QuantizationPlan, work: Workspace, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a pressed component, in the order of the original's names, one in memory at a time."""
    solved = dict(_locate_solution_tensors(part, work, PRIMARY))
    small = {f"{name}.weight" for name in int8_embeddings(part, plan)}
    for name in part.used_tensor_names:
        packed = [name.removesuffix("weight") + kind for kind in AWQ_TENSOR_NAMES]
        if packed[0] in solved:
            yield from ((key, work.read_tensor(*solved[key])) for key in packed)
        elif name in small:
            for kind, tensor in zip(
                Int8Rows._fields, _quantize_embedding(part.checkpoint.load_tensor(name)), strict=True
            ):
                yield name.removesuffix("weight") + kind, tensor
        elif name in solved:
            yield name, _downcast(work.read_tensor(*solved[name]), dtype)
        else:
            yield name, _downcast(part.checkpoint.load_tensor(name), dtype)


def _quantize_embedding(weight: Tensor) -> Int8Rows:
    """A matrix in 8 bits, worked on some rows at a time."""
    parts = [quantize_rows(rows) for rows in weight.split(ROWS_PER_CHUNK)]
    return Int8Rows(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def solved_tensors(part: ComponentPlan, work: Workspace, solution: str) -> Iterator[tuple[str, Tensor]]:
    """What was solved of a component on one grid."""
    for name, where in sorted(_locate_solution_tensors(part, work, solution)):
        yield name, work.read_tensor(*where)


def _solution_config(part: ComponentPlan, work: Workspace, solution: str, scheme: Scheme) -> dict[str, Any]:
    """The scheme; where it rounds activations also each linear's error, by its name in the component, and the kept."""
    if not scheme.quantizes_activations:
        return {"scheme": scheme.model_dump(mode="json", exclude={"activations", "keep_above"})}
    notes = [
        layer for unit in part.blocks for layer in work.read_metadata(work.block_file(unit.name))["layers"][solution]
    ]
    layers = {note["layer"].removeprefix(f"{part.name}."): note for note in notes}
    errors = {name: layer["error"] for name, layer in layers.items()}
    kept = [name for name, layer in layers.items() if layer["kept"]]
    return {"scheme": scheme.model_dump(mode="json"), "errors": errors, "kept": kept}


def _locate_solution_tensors(
    part: ComponentPlan, work: Workspace, solution: str
) -> Iterator[tuple[str, tuple[Path, str]]]:
    """The names of solved tensors, and where in the work folder they are: the file, and the name there."""
    for unit in part.blocks:
        file = work.block_file(unit.name)
        for key in work.tensor_names(file):
            made_for, _, name = key.partition(":")
            if made_for == solution:
                yield name, (file, key)


def _downcast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor stored no wider than the reference computes with it."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.itemsize > dtype.itemsize else tensor


def quantization_config(part: ComponentPlan, plan: QuantizationPlan) -> dict[str, Any]:
    """The `quantization_config` of a component, in the words of AutoAWQ's checkpoints and, where needed, three more."""
    scheme = plan.quantization.scheme
    said: dict[str, Any] = {
        "quant_method": "awq",
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "zero_point": scheme.zero_point,
        "version": "gemm",
        "modules_to_not_convert": unquantized_modules(part),
    }
    more = {
        "embeddings": int8_embeddings(part, plan),
        "unread": list(part.unused_blocks),
        "dropped": list(part.spec.unused_modules),
    }
    return said | {key: names for key, names in more.items() if names}


def int8_embeddings(part: ComponentPlan, plan: QuantizationPlan) -> list[str]:
    """The token embeddings that are stored in 8 bits."""
    return list(part.spec.embeddings) if plan.quantization.embeddings == "int8" else []


def unquantized_modules(part: ComponentPlan) -> list[str]:
    """Modules with a two-dimensional weight that stay in their original precision."""
    quantized = {f"{linear}.weight" for unit in part.blocks for linear in unit.linears}
    matrices = (name for name in part.used_tensor_names if name.endswith(".weight"))
    kept = [name for name in matrices if name not in quantized and len(part.checkpoint.shape(name)) == 2]
    return sorted(name.removesuffix(".weight") for name in kept)


def compute_savings(part: ComponentPlan, plan: QuantizationPlan, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of a component's weights that each measure saves."""
    stored = {name: part.checkpoint.nbytes(name) for name in part.checkpoint.names()}
    quantized = {f"{linear}.weight" for unit in part.blocks for linear in unit.linears}
    small = {f"{name}.weight" for name in int8_embeddings(part, plan)}
    kept = set(part.used_tensor_names) - quantized - small
    scheme = plan.quantization.scheme
    packed = {name: _packed_bytes(part.checkpoint.shape(name), scheme) for name in quantized}
    return {
        "4-bit linears": sum(stored[name] - size for name, size in packed.items()),
        "8-bit embeddings": sum(stored[name] - _row_bytes(part.checkpoint.shape(name)) for name in small),
        "unread parts": part.checkpoint.ignored_bytes()
        + sum(stored[name] for name in stored.keys() - part.used_tensor_names),
        "kept matrices": sum(stored[name] - _downcast_bytes(part, name, dtype) for name in kept),
    }


def _packed_bytes(shape: tuple[int, ...], scheme: Scheme) -> int:
    """AWQ's layout: 4 bits a weight, and for each group 16 of scale and 4 of zero point."""
    height, width = shape
    return height * width // 2 + height * (width // scheme.resolve_group_size(width)) * 20 // 8


def _row_bytes(shape: tuple[int, ...]) -> int:
    height, width = shape
    return height * (width + 2)


def _downcast_bytes(part: ComponentPlan, name: str, dtype: torch.dtype) -> int:
    return min(part.checkpoint.nbytes(name), math.prod(part.checkpoint.shape(name)) * dtype.itemsize)


def _is_regenerated(plan: QuantizationPlan, path: Path) -> bool:
    """Whether a file of the source is not to be copied: weights and config of pressed components, and any pickle."""
    if any(path.match(pattern) for pattern in PICKLE_PATTERNS):
        return True
    pressed = len(path.parts) == 2 and path.parts[0] in {part.name for part in plan.components}
    return pressed and (path.name == "config.json" or ".safetensors" in path.name)
