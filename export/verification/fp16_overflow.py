"""Checks node by node whether float16 can hold what a graph computes.

On most CPUs ONNX Runtime computes float16 graphs in float32, so its outputs do not show an overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...models.base.reference import Arrays
from ..graph.passes.pattern import NodeBuilder
from .instrumented_graph import run_instrumented

FP16_MAX = float(np.finfo(np.float16).max)


def find_fp16_overflow(file: Path, inputs: Arrays) -> str | None:
    """Returns the name of the first value that is not a finite float16 number for some inputs, or None.

    Args:
        file: A graph; a temporary copy is written beside it.
        inputs: Arrays by port name.
    """
    model = ir.load(file)
    values = [value for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT16]
    if not values:
        return None
    output_names = _add_magnitude_outputs(model, values)
    magnitudes = run_instrumented(model, file, output_names, inputs)
    return next(
        (value.name for value, magnitude in zip(values, magnitudes, strict=True) if not magnitude <= FP16_MAX), None
    )


def _add_magnitude_outputs(model: ir.Model, values: Sequence[ir.Value]) -> list[str]:
    """Adds the largest magnitude of each value to a graph's outputs, in float32, and returns their names."""
    op = NodeBuilder()
    names = [f"magnitude.{number}" for number in range(len(values))]
    for name, value in zip(names, values, strict=True):
        magnitude = op("ReduceMax", op("Abs", op("Cast", value, to=ir.DataType.FLOAT)), keepdims=0)
        magnitude.name, magnitude.type, magnitude.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        model.graph.outputs.append(magnitude)
    model.graph.extend(op.nodes)
    return names
