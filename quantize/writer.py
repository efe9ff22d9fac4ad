"""Writes the quantized pipeline: a diffusers folder in which the results of blocks replace the original weights.

Extra schemes are stored beside the components, in `solutions/SCHEME/COMPONENT`: only the tensors that were quantized,
the scheme and, where it quantizes activations, the error of every linear and the linears that stay in floating point.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..common.progress import Progress, no_progress
from ..numerics.awq_packing import AwqTensors
from ..numerics.int8_rows import Int8Rows, quantize_rows
from ..pipelines.byte_order_marks import copy_without_mark
from ..pipelines.empty_modules import find_config_part
from ..pipelines.lora_scales import SCALE_NAMES, write_lora_scales
from ..recipes.schema import PRIMARY, Scheme
from ..storage.checkpoint import Checkpoint, write_sharded
from ..storage.files import FileRecord, read_json_object, write_json
from ..storage.layout import MODEL_INDEX, solution_folder
from ..storage.weight_files import PICKLE_PATTERNS, WEIGHT_FILE_STEMS, find_weight_folders, get_library
from .allocation.options import list_options
from .allocation.page import write_allocation_page
from .allocation.record import read_allocation
from .model_readme import write_model_readme
from .plan import ComponentPlan, QuantizationPlan
from .workspace import Workspace, list_tensor_names, read_metadata, read_tensor

AWQ_TENSOR_NAMES = AwqTensors._fields
ROWS_PER_CHUNK = 8192  # of a weight in 8 bits, quantized at once


def save_quantized_pipeline(
    plan: QuantizationPlan,
    files: Sequence[FileRecord],
    workspace: Workspace,
    dtype: torch.dtype,
    progress: Progress = no_progress,
) -> None:
    """Assembles the quantized pipeline in the workspace. Files that quantization does not change are copied.

    Args:
        files: Every file of the source pipeline.
        dtype: What the reference computes in. Tensors that keep their precision are stored no wider than that.
    """
    model = workspace.model_folder
    shutil.rmtree(model, ignore_errors=True)
    unusual = _find_unusual_checkpoints(plan)
    regenerated = {component.name for component in plan.components} | unusual.keys()
    for file in files:
        if not _is_regenerated(regenerated, Path(file.path)):
            (model / file.path).parent.mkdir(parents=True, exist_ok=True)
            copy_without_mark(plan.source / file.path, model / file.path)
    _write_model_index(plan, model)
    write_model_readme(model, plan.source)
    if (record := read_allocation(workspace)) is not None:
        write_allocation_page(record, model)
    for name, checkpoint in unusual.items():
        stored = ((key, checkpoint.load_tensor(key)) for key in sorted(checkpoint.names()))
        _write_component(model / name, stored, checkpoint.load_config(), get_library(checkpoint.load_config()))
    for component in plan.components:
        float_linears = read_float_linears(component, workspace)
        schemes = read_linear_schemes(component, plan, workspace)
        rescaled = read_rescaled_linears(component, workspace)
        quantization = build_quantization_config(component, plan, float_linears, schemes, rescaled)
        config = _add_quantization_config(component, quantization)
        tensors = _with_tuned(iterate_tensors(component, plan, workspace, dtype), component, workspace, PRIMARY)
        tensors = _with_progress(tensors, component, progress)
        _write_component(model / component.name, tensors, config, component.library)
        write_lora_scales(dict(_iterate_lora_scales(component, workspace)), model / component.name)
        for name, scheme in plan.settings.extra_schemes.items() if component.blocks else ():
            tensors = _with_tuned(iterate_scheme_tensors(component, workspace, name), component, workspace, name)
            config = _build_scheme_config(component, workspace, name, scheme)
            _write_component(solution_folder(model, name, component.name), tensors, config, component.library)


def _add_quantization_config(component: ComponentPlan, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a component's config with its `quantization_config`, also in the part of it that alone is read."""
    added, part = {"quantization_config": settings}, find_config_part(component.spec.model_class, component.config)
    return component.config | added | ({part: component.config[part] | added} if part else {})


def _write_component(folder: Path, tensors: Iterator[tuple[str, Tensor]], config: dict[str, Any], library: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_sharded(tensors, folder, WEIGHT_FILE_STEMS[library])
    write_json(config, folder / "config.json")


def _find_unusual_checkpoints(plan: QuantizationPlan) -> dict[str, Checkpoint]:
    """Finds the components that are not quantized, but cannot be copied as they are.

    Such are those of a variant or with prefixed names, which no library would load alike; `from_pretrained` of the
    result needs neither. Others are changed by a LoRA.
    """
    quantized = {component.name for component in plan.components}
    folders = [folder for folder in find_weight_folders(plan.source) if folder.name not in quantized]
    checkpoints = {folder.name: Checkpoint(folder) for folder in folders}
    for component in plan.unquantized_components:
        planned = component.checkpoint
        if planned.changes:
            changes = {planned.prefix + name: change for name, change in planned.changes.items()}
            checkpoints[component.name] = checkpoints[component.name].with_changes(changes)
    return {name: checkpoint for name, checkpoint in checkpoints.items() if not checkpoint.is_plain}


def _write_model_index(plan: QuantizationPlan, model: Path) -> None:
    """Writes the classes of quantized components to model_index.json where it names others, such as with a head."""
    index = read_json_object(plan.source / MODEL_INDEX)
    classes = {component.name: component.spec.model_class for component in plan.components}
    changed = {name: [index[name][0], cls] for name, cls in classes.items() if index[name][1] != cls}
    if changed:
        write_json(index | changed, model / MODEL_INDEX)


def _with_progress(
    tensors: Iterator[tuple[str, Tensor]], component: ComponentPlan, progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """Yields the same tensors and reports how many have been written."""
    num_linears = sum(len(block.linears) for block in component.blocks)
    total = len(component.used_tensor_names) + (len(AWQ_TENSOR_NAMES) - 1) * num_linears
    for number, tensor in enumerate(tensors, 1):
        yield tensor
        progress(f"writing {component.name}", min(number, total), total)


def _with_tuned(
    tensors: Iterator[tuple[str, Tensor]], component: ComponentPlan, workspace: Workspace, scheme: str
) -> Iterator[tuple[str, Tensor]]:
    """Yields tensors of a component as tuning left them; what only tuning stored for an extra scheme comes last."""
    file = workspace.tuned_file(component.name, scheme)
    tuned = set(list_tensor_names(file)) if file.exists() else set()
    for name, tensor in tensors:
        yield name, read_tensor(file, name) if name in tuned else tensor
        tuned.discard(name)
    yield from ((name, read_tensor(file, name)) for name in sorted(tuned))


def iterate_tensors(
    component: ComponentPlan, plan: QuantizationPlan, workspace: Workspace, dtype: torch.dtype, prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Yields all tensors of a quantized component in the order of the original's names, one in memory at a time.

    They are as the blocks were solved, without tuning.

    Args:
        component: The component.
        plan: Its plan.
        workspace: Where its blocks are.
        dtype: What the reference computes in.
        prefix: What the names begin with.
    """
    results = dict(_locate_results(component, workspace, PRIMARY))
    int8_modules = [*list_int8_embeddings(component, plan), *list_int8_convolutions(component, plan)]
    int8 = {f"{name}.weight" for name in int8_modules}
    for name in component.used_tensor_names:
        if not name.startswith(prefix):
            continue
        packed = [name.removesuffix("weight") + kind for kind in AWQ_TENSOR_NAMES]
        if packed[0] in results:
            yield from ((key, read_tensor(*results[key])) for key in packed)
        elif name in int8:
            rows = _quantize_to_int8(component.checkpoint.load_tensor(name))
            for kind, tensor in rows._asdict().items():
                yield name.removesuffix("weight") + kind, tensor
        elif name in results:
            yield name, _downcast(read_tensor(*results[name]), dtype)
        else:
            yield name, _downcast(component.checkpoint.load_tensor(name), dtype)


def _quantize_to_int8(weight: Tensor) -> Int8Rows:
    """Quantizes an embedding or a convolution to 8 bits, some rows at a time."""
    chunks = [quantize_rows(rows) for rows in weight.split(ROWS_PER_CHUNK)]
    return Int8Rows(*(torch.cat(tensors) for tensors in zip(*chunks, strict=True)))


def iterate_scheme_tensors(
    component: ComponentPlan, workspace: Workspace, scheme: str, prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a component that an extra scheme quantized, sorted by name, without tuning.

    Args:
        component: The component.
        workspace: Where its blocks are.
        scheme: Name of the scheme.
        prefix: What the names begin with.
    """
    for name, location in sorted(_locate_results(component, workspace, scheme)):
        if name.startswith(prefix):
            yield name, read_tensor(*location)


def _build_scheme_config(component: ComponentPlan, workspace: Workspace, name: str, scheme: Scheme) -> dict[str, Any]:
    """Describes an extra scheme; where it quantizes activations, also each linear's error and those that stay float."""
    if not scheme.quantizes_activations:
        return {"scheme": scheme.model_dump(mode="json", exclude={"activations", "max_output_error"})}
    stats = _read_layers(component, workspace, name)
    return {
        "scheme": scheme.model_dump(mode="json"),
        "errors": {linear: layer["error"] for linear, layer in stats.items()},
        "float_modules": [linear for linear, layer in stats.items() if layer["stays_float"]],
    }


def _locate_results(
    component: ComponentPlan, workspace: Workspace, scheme: str
) -> Iterator[tuple[str, tuple[Path, str]]]:
    """Yields the names of quantized tensors with their file in the workspace and their name in it."""
    for name, location in _locate_tensors(component, workspace, scheme):
        if not name.endswith(SCALE_NAMES):
            yield name, location


def _locate_tensors(
    component: ComponentPlan, workspace: Workspace, scheme: str
) -> Iterator[tuple[str, tuple[Path, str]]]:
    for block in component.blocks:
        file = workspace.block_file(block.name)
        for key in list_tensor_names(file):
            key_scheme, _, name = key.partition(":")
            if key_scheme == scheme:
                yield name, (file, key)


def _iterate_lora_scales(component: ComponentPlan, workspace: Workspace) -> Iterator[tuple[str, Tensor]]:
    """Yields what LoRAs beside linears of a component are scaled by, as `find_rescaling` returned it."""
    for name, location in _locate_tensors(component, workspace, PRIMARY):
        if name.endswith(SCALE_NAMES):
            yield name, read_tensor(*location)


def _downcast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a tensor no wider than the reference computes with it."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.itemsize > dtype.itemsize else tensor


def _read_layers(component: ComponentPlan, workspace: Workspace, scheme: str) -> dict[str, dict[str, Any]]:
    """Returns the statistics of a component's linears with a scheme, by path."""
    files = (workspace.block_file(block.name) for block in component.blocks)
    layers = (layer for file in files for layer in read_metadata(file)["layers"][scheme])
    return {layer["layer"].removeprefix(f"{component.name}."): layer for layer in layers}


def read_float_linears(component: ComponentPlan, workspace: Workspace) -> set[str]:
    """Returns the linears in a component's blocks that are not quantized: float16 cannot hold their scales."""
    return {linear for linear, layer in _read_layers(component, workspace, PRIMARY).items() if layer["stays_float"]}


def read_rescaled_linears(component: ComponentPlan, workspace: Workspace, scheme: str = PRIMARY) -> list[str]:
    """Returns the linears that read or return other values than in the original with a scheme, by path."""
    layers = _read_layers(component, workspace, scheme)
    marked = [linear for linear, layer in layers.items() if layer.get("is_rescaled")]
    # Also linears that are not quantized, before which nothing is.
    scaled = [
        name.rpartition(".")[0]
        for name, _ in _locate_tensors(component, workspace, scheme)
        if name.endswith(SCALE_NAMES)
    ]
    return list(dict.fromkeys((*marked, *scaled)))


def read_linear_schemes(component: ComponentPlan, plan: QuantizationPlan, workspace: Workspace) -> dict[str, Scheme]:
    """Returns the schemes of linears for which a budget chose another than the primary one, by path."""
    if plan.settings.budget is None:
        return {}
    options, layers = list_options(plan.settings.scheme), _read_layers(component, workspace, PRIMARY)
    return {
        linear: scheme
        for linear, scheme in ((linear, options[layer["chosen"]]) for linear, layer in layers.items())
        if scheme is not None and not _is_alike(component.checkpoint.shape(f"{linear}.weight"), scheme, plan)
    }


def _is_alike(shape: tuple[int, ...], scheme: Scheme, plan: QuantizationPlan) -> bool:
    """Whether the primary scheme stores a weight (out, in) as another one does."""
    primary = plan.settings.scheme
    return (scheme.bits, scheme.resolve_group_size(shape[1])) == (primary.bits, primary.resolve_group_size(shape[1]))


def build_quantization_config(
    component: ComponentPlan,
    plan: QuantizationPlan,
    float_linears: Collection[str] = (),
    schemes: Mapping[str, Scheme] = MappingProxyType({}),
    rescaled_linears: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns `quantization_config` of a component: AutoAWQ's keys and, where needed, five more of this package.

    Args:
        float_linears: Linears in blocks that are not quantized.
        schemes: The schemes of linears that are not stored with the primary one, by path.
        rescaled_linears: Linears that read or return other values than in the original.
    """
    scheme = plan.settings.scheme
    config: dict[str, Any] = {
        "quant_method": "awq",
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "zero_point": not scheme.symmetric,
        "version": "gemm",
        "modules_to_not_convert": list_unquantized_modules(component, float_linears),
    }
    optional: dict[str, Any] = {
        "extra_config": {
            linear: {"bits": chosen.bits, "group_size": -1 if chosen.group_size == "channel" else chosen.group_size}
            for linear, chosen in schemes.items()
        },
        "embeddings": list_int8_embeddings(component, plan),
        "convolutions": list_int8_convolutions(component, plan),
        "unused_blocks": list(component.unused_blocks),
        "unused_modules": list(component.spec.unused_modules),
        "rescaled_linears": list(rescaled_linears),
    }
    return config | {key: names for key, names in optional.items() if names}


def list_int8_embeddings(component: ComponentPlan, plan: QuantizationPlan) -> list[str]:
    """Lists the token embeddings that are stored in 8 bits."""
    return list(component.int8_embeddings) if plan.settings.embeddings == "int8" else []


def list_int8_convolutions(component: ComponentPlan, plan: QuantizationPlan) -> list[str]:
    """Lists the convolutions that are stored in 8 bits."""
    return list(component.int8_convolutions) if plan.settings.conv == "int8" else []


def list_unquantized_modules(component: ComponentPlan, float_linears: Collection[str] = ()) -> list[str]:
    """Lists the linears and other modules with a two-dimensional weight that keep their original precision.

    A linear is listed even if its weight is stored under another name, as that of a tied head.

    Args:
        float_linears: Linears in blocks that are not quantized.
    """
    quantized = list_quantized_weights(component, float_linears)
    names = [name for name in component.used_tensor_names if name.endswith(".weight") and name not in quantized]
    matrices = [name.removesuffix(".weight") for name in names if len(component.checkpoint.shape(name)) == 2]
    return sorted({*matrices, *component.kept_linears})


def list_quantized_weights(component: ComponentPlan, float_linears: Collection[str] = ()) -> set[str]:
    """Lists the names of the weights of linears that are quantized in the original.

    Args:
        float_linears: Linears in blocks that are not quantized.
    """
    linears = {linear for block in component.blocks for linear in block.linears}
    return {f"{linear}.weight" for linear in linears.difference(float_linears)}


def _is_regenerated(components: Collection[str], path: Path) -> bool:
    """Returns whether a source file is not copied: weights and config of written components, and any pickle."""
    if any(path.match(pattern) for pattern in PICKLE_PATTERNS):
        return True
    is_written = len(path.parts) == 2 and path.parts[0] in components
    return is_written and (path.name == "config.json" or ".safetensors" in path.name)
