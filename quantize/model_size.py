"""What a quantized pipeline takes on disk: before it is written, and what each measure saves."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Set
from types import MappingProxyType
from typing import Any

import torch

from ..numerics.int8_rows import Int8Rows
from ..recipes.schema import Scheme
from ..storage.checkpoint import MAX_SHARD_BYTES, Checkpoint
from ..storage.weight_files import find_weight_folders
from .allocation.options import count_bytes, list_options
from .plan import ComponentPlan, QuantizationPlan, count_linear_weights
from .writer import AWQ_TENSOR_NAMES, list_int8_convolutions, list_int8_embeddings, list_quantized_weights

LENGTH_BYTES = 16  # of a safetensors file: what its header's length takes, and what pads the header, at most
# Quantizing a linear takes at least the process and about seven float32 matrices of its squared input width.
BASE_MEMORY = 2**30
BYTES_PER_SQUARED_WIDTH = 28


def compute_savings(
    component: ComponentPlan,
    plan: QuantizationPlan,
    dtype: torch.dtype,
    float_linears: Collection[str] = (),
    schemes: Mapping[str, Scheme] = MappingProxyType({}),
) -> dict[str, int]:
    """Returns the bytes of a component's weights that each measure saves.

    Args:
        float_linears: Linears in blocks that are not quantized.
        schemes: The schemes of linears that are not stored with the primary one, by path.
    """
    checkpoint = component.checkpoint
    stored = {name: checkpoint.nbytes(name) for name in checkpoint.names()}
    used = component.used_tensor_names
    embeddings = {f"{name}.weight" for name in list_int8_embeddings(component, plan)}
    convolutions = {f"{name}.weight" for name in list_int8_convolutions(component, plan)}
    quantized = list_quantized_weights(component, float_linears)
    unquantized = set(used) - quantized - embeddings - convolutions
    unused_bytes = checkpoint.ignored_bytes() + sum(stored[name] for name in stored.keys() - used)
    return {
        "4-bit linears": sum(
            stored[name]
            - count_bytes(checkpoint.shape(name), schemes.get(name.removesuffix(".weight"), plan.settings.scheme), 0)
            for name in quantized
        ),
        "8-bit embeddings": sum(stored[name] - _int8_rows_bytes(checkpoint.shape(name)) for name in embeddings),
        "8-bit convolutions": sum(stored[name] - _int8_rows_bytes(checkpoint.shape(name)) for name in convolutions),
        "unused modules": unused_bytes,
        "unquantized matrices": sum(stored[name] - _downcast_bytes(component, name, dtype) for name in unquantized),
    }


def estimate_output_bytes(plan: QuantizationPlan, dtype: torch.dtype) -> int:
    """Estimates what quantization writes at least: the quantized blocks twice, as work and in the model.

    Args:
        dtype: What the reference computes in.
    """
    schemes = [plan.settings.scheme, *plan.settings.extra_schemes.values()]
    weights = sum(map(count_linear_weights, plan.components))
    total = count_unquantized_bytes(plan, dtype) + sum(2 * weights * scheme.bits // 8 for scheme in schemes)
    formats = list_options(plan.settings.scheme).values() if plan.settings.budget is not None else ()
    return total + sum(weights * (scheme.bits if scheme else 8 * dtype.itemsize) // 8 for scheme in formats)


def count_unquantized_bytes(plan: QuantizationPlan, dtype: torch.dtype) -> int:
    """Counts the bytes of everything in the quantized pipeline's weight files but its 4-bit linears.

    Args:
        dtype: What the reference computes in.
    """
    quantized_components = {component.name for component in plan.components}
    folders = [folder for folder in find_weight_folders(plan.source) if folder.name not in quantized_components]
    total = sum(Checkpoint(folder).file_bytes() for folder in folders)
    for component in plan.components:
        names = component.spec.embeddings if plan.settings.embeddings == "int8" else ()
        names = (*names, *component.convolutions) if plan.settings.conv == "int8" else names
        int8 = {f"{name}.weight" for name in names}
        total += sum(_int8_rows_bytes(component.checkpoint.shape(name)) for name in int8)
        unquantized = set(component.used_tensor_names) - list_quantized_weights(component) - int8
        total += sum(_downcast_bytes(component, name, dtype) for name in unquantized)
        total += _count_header_bytes(component, list_quantized_weights(component), int8)
    return total


def _count_header_bytes(component: ComponentPlan, linears: Set[str], int8: Set[str]) -> int:
    """Counts the bytes of the headers of a component's safetensors files, at most."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name in component.used_tensor_names:
        kinds = AWQ_TENSOR_NAMES if name in linears else Int8Rows._fields if name in int8 else ()
        entry = {"dtype": "BF16", "shape": component.checkpoint.shape(name), "data_offsets": [MAX_SHARD_BYTES] * 2}
        header |= dict.fromkeys([name.removesuffix("weight") + kind for kind in kinds] or [name], entry)
    return len(json.dumps(header, separators=(",", ":"))) + LENGTH_BYTES


def _int8_rows_bytes(shape: tuple[int, ...]) -> int:
    """Returns the size in 8 bits with an fp16 scale per row."""
    return math.prod(shape) + 2 * shape[0]


def _downcast_bytes(component: ComponentPlan, name: str, dtype: torch.dtype) -> int:
    checkpoint = component.checkpoint
    return min(checkpoint.nbytes(name), math.prod(checkpoint.shape(name)) * dtype.itemsize)


def estimate_solver_memory(plan: QuantizationPlan) -> int:
    """Returns about how many bytes of memory quantizing a plan's widest linear takes."""
    return BASE_MEMORY + BYTES_PER_SQUARED_WIDTH * find_widest_input(plan) ** 2


def find_widest_input(plan: QuantizationPlan) -> int:
    """Returns the number of channels of the widest input of a linear that is quantized."""
    widths = (
        component.checkpoint.shape(f"{linear}.weight")[1]
        for component in plan.components
        for block in component.blocks
        for linear in block.linears
    )
    return max(widths, default=0)
