"""Small graphs like traced ones: initializers have a name, a dtype and a shape, but no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgepress.numerics.affine import QParams, QuantizedWeight
from edgepress.numerics.awq_packing import pack_awq
from edgepress.storage.checkpoint import Checkpoint

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def make_initializer(name: str, shape: Sequence[int], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def make_linear_model(layers: Mapping[str, tuple[int, int]], opset: int = 21) -> ir.Model:
    """Returns a graph of linear layers (outputs, inputs) by name, with inputs `NAME.x` and outputs `NAME.y`."""
    inputs, outputs, nodes, weights = [], [], [], []
    for name, (height, width) in layers.items():
        x = ir.Value(name=f"{name}.x", shape=ir.Shape(["rows", width]), type=FLOAT)
        weight = make_initializer(f"{name}.weight", (height, width))
        transposed = ir.node("Transpose", [weight], {"perm": [1, 0]})
        product = ir.node("MatMul", [x, transposed.outputs[0]])
        y = product.outputs[0]
        y.name, y.shape, y.type = f"{name}.y", ir.Shape(["rows", height]), FLOAT
        inputs.append(x)
        outputs.append(y)
        nodes += [transposed, product]
        weights.append(weight)
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=weights, opset_imports={"": opset}, name="linears")
    return ir.Model(graph, ir_version=10)


def make_random_weight(height: int, width: int, block: int, zero_points: bool, seed: int = 0) -> QuantizedWeight:
    """Returns an INT4 weight (height, width) with every code, and scales of all magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    groups = width // block
    codes = torch.randint(0, 16, (height, width), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (height, groups), generator=generator, dtype=torch.uint8)
    zeros = zeros if zero_points else torch.full_like(zeros, 8)
    scales = (torch.randn(height, groups, generator=generator).abs() * 0.02 + 2.0**-20).half().float()
    return QuantizedWeight(codes, QParams(scales, zeros))


def make_awq_tensors(codes: Mapping[str, QuantizedWeight]) -> dict[str, Tensor]:
    """Returns the tensors of a quantized component."""
    return {
        f"{name}.{kind}": tensor
        for name, weight in codes.items()
        for kind, tensor in pack_awq(weight)._asdict().items()
    }


def write_component(folder: Path, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Writes a component folder with the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    return Checkpoint(folder)
