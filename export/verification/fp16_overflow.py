"""Whether float16 can hold what a graph computes, looked at node by node.

ONNX Runtime computes float16 graphs on most CPUs in float32, so that its outputs do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from ...models.base.reference import Arrays
from ..graph.passes.pattern import NodeBuilder

FP16_MAX = float(np.finfo(np.float16).max)


def find_fp16_overflow(file: Path, inputs: Arrays) -> str | None:
    """The first value of a graph that is no finite number in float16 for some inputs, None where there is none."""
    model = ir.load(file)
    values = [value for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT16]
    if not values:
        return None
    output_names = _add_magnitude_outputs(model, values)
    copy = file.with_suffix(".watched.onnx")
    ir.save(model, copy)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(copy, options, providers=["CPUExecutionProvider"])
        magnitudes = session.run(output_names, inputs)
    finally:
        copy.unlink()
    return next((value.name for value, size in zip(values, magnitudes, strict=True) if not size <= FP16_MAX), None)


def _add_magnitude_outputs(model: ir.Model, values: Sequence[ir.Value]) -> list[str]:
    """Adds the largest magnitudes of values to a graph's outputs, in float32; gives their names."""
    op = NodeBuilder()
    for number, value in enumerate(values):
        size = op("ReduceMax", op("Abs", op("Cast", value, to=ir.DataType.FLOAT)), keepdims=0)
        size.name, size.type, size.shape = f"largest.{number}", ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        model.graph.outputs.append(size)
    model.graph.extend(op.nodes)
    return [f"largest.{number}" for number in range(len(values))]
