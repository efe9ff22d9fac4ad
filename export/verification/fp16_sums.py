"""What a float16 graph loses on processors that sum products in float16, as arm64 CPUs do from the Cortex-A76 on.

ONNX Runtime computes such graphs in float32 on x86, so a comparison of outputs there does not show it (docs/onnx.md).
Here the widest products of a graph (MatMul, Gemm and Conv) are summed again in numpy, term after term, each sum rounded
to float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...models.base.reference import Arrays
from ..graph.passes.pattern import NodeBuilder
from .instrumented_graph import run_instrumented
from .product_matrices import count_terms, sample_matrices

NUM_PRODUCTS = 4  # of a graph, those with the longest sums


@dataclass(frozen=True)
class Fp16Sums:
    """A product whose terms are summed in float16.

    Attributes:
        product: Name of its output.
        length: Number of terms of a sum.
        relative_error: The largest error over the largest value of the exact product, both of the sampled rows and
            columns; None where a sum overflows.
    """

    product: str
    length: int
    relative_error: float | None

    @property
    def loss(self) -> float:
        """The relative error; infinite where a sum overflows."""
        return np.inf if self.relative_error is None else self.relative_error


def measure_fp16_sums(file: Path, inputs: Arrays) -> Fp16Sums | None:
    """Returns the product of a graph that loses most, of those with the longest sums; None if none is in float16.

    Args:
        file: A graph; a temporary copy is written beside it.
        inputs: Arrays by port name.
    """
    model = ir.load(file)
    nodes = _find_widest_products(model.graph)
    if not nodes:
        return None
    names = _add_operand_outputs(model, nodes)
    operands = run_instrumented(model, file, names, inputs)
    pairs = zip(nodes, operands[::2], operands[1::2], strict=True)
    measured = [_measure(str(node.outputs[0].name), *sample_matrices(node, *pair)) for node, *pair in pairs]
    return max(measured, key=lambda sums: sums.loss)


def sum_in_fp16(left: NDArray[np.float16], right: NDArray[np.float16]) -> NDArray[np.float16]:
    """Multiplies matrices with fused multiply-adds in float16, one term after the other.

    Args:
        left: (rows, terms).
        right: (terms, columns).

    Returns:
        (rows, columns), infinite where a sum passes what float16 can hold.
    """
    total = np.zeros((len(left), right.shape[1]), np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        for column, row in zip(left.T.astype(np.float32), right.astype(np.float32), strict=True):
            total = (total + np.outer(column, row)).astype(np.float16)  # exact in float32, then rounded once
    return total


def _find_widest_products(graph: ir.Graph) -> list[ir.Node]:
    """The products in float16 with weights, those with the longest sums first."""
    lengths = {node: length for node in graph if (length := count_terms(node)) is not None}
    return sorted(lengths, key=lambda node: -lengths[node])[:NUM_PRODUCTS]


def _add_operand_outputs(model: ir.Model, nodes: Sequence[ir.Node]) -> list[str]:
    """Adds both operands of each node to a graph's outputs, and returns their names."""
    op = NodeBuilder()
    names: list[str] = []
    for node in nodes:
        for operand in node.inputs[:2]:
            output = op("Identity", operand)
            output.name, output.type = f"operand.{len(names)}", ir.TensorType(ir.DataType.FLOAT16)
            names.append(output.name)
            model.graph.outputs.append(output)
    model.graph.extend(op.nodes)
    return names


def _measure(product: str, rows: NDArray[np.float16], columns: NDArray[np.float16]) -> Fp16Sums:
    exact = rows.astype(np.float64) @ columns.astype(np.float64)
    sums = sum_in_fp16(rows, columns)
    if not np.isfinite(sums).all():
        return Fp16Sums(product, rows.shape[1], None)
    scale = max(float(np.abs(exact).max()), float(np.finfo(np.float16).tiny))
    return Fp16Sums(product, rows.shape[1], float(np.abs(sums - exact).max()) / scale)
