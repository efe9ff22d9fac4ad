"""Reads what a quantized pipeline folder stores of its linear layers and norms, as the weights that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from ...numerics.affine import dequantize
from ...numerics.awq_packing import AwqTensors, unpack_awq


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a pipeline folder.

    Attributes:
        component: The component's folder.
        path: Path of its module in the component.
        name: `weight` or `bias`.
        value: The tensor; the weight of a quantized layer is dequantized, (out_features, in_features).
    """

    component: str
    path: str
    name: str
    value: Tensor


def iterate_quantized(folder: Path) -> Iterator[StoredTensor]:
    """Yields the weight of every quantized linear layer of a pipeline folder."""
    for file in sorted(folder.glob("*/*.safetensors")):
        tensors = load_file(file)
        for name in [name for name in tensors if name.endswith(".qweight")]:
            path = name.removesuffix(".qweight")
            packed = AwqTensors(*(tensors[f"{path}.{kind}"] for kind in AwqTensors._fields))
            yield StoredTensor(file.parent.name, path, "weight", dequantize(unpack_awq(packed)))


def iterate_vectors(folder: Path) -> Iterator[StoredTensor]:
    """Yields every bias, and the weight of every norm, of a pipeline folder."""
    for file in sorted(folder.glob("*/*.safetensors")):
        for key, value in load_file(file).items():
            path, _, name = key.rpartition(".")
            if value.ndim == 1 and name in ("weight", "bias"):
                yield StoredTensor(file.parent.name, path, name, value)


def take_over_weights(pipeline: Any, folder: Path) -> None:
    """Puts what a quantized folder stores into the original pipeline.

    Besides quantized weights, these are biases that take over the mean of errors, and norms that take over scales.

    Args:
        pipeline: The original, loaded by diffusers in float32.
        folder: The folder of the quantized pipeline.
    """
    for tensor in (*iterate_quantized(folder), *iterate_vectors(folder)):
        module = _get_module(getattr(pipeline, tensor.component), tensor.path)
        setattr(module, tensor.name, nn.Parameter(tensor.value.float(), requires_grad=False))


def _get_module(model: Any, path: str) -> nn.Module:
    """Returns a module by its path in the stored class, which may be that of the original without its head."""
    try:
        module: nn.Module = model.get_submodule(path)
    except AttributeError:
        module = model.base_model.get_submodule(path)
    return module
