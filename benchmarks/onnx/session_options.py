"""Which session options of ONNX Runtime compute INT4 products correctly, by how a graph expresses them.

Run by `make bench-onnx-options`, in a second. The exporter writes the first three arrangements. The others were tried
to avoid what the float16 one does at two optimization levels: to compute zeros, without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...common.markdown_table import render_table
from ...runtime.onnx.sessions import ACCURACY_LEVEL_ENTRY, CPU_PROVIDERS
from ..common.report import write_section

ROWS, INPUTS, OUTPUTS, BLOCK_SIZE = 4, 64, 32, 32
LEVELS = ("DISABLE_ALL", "BASIC", "EXTENDED", "LAYOUT", "ALL")
ENTRIES = (None, "0", "4")
ZEROS = "**zeros**"


def make_operands() -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
    """Returns signed 4-bit codes (inputs, outputs), scales (blocks, outputs) and activations (rows, inputs)."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (INPUTS, OUTPUTS), dtype=np.int8)
    scales = rng.uniform(0.005, 0.02, (INPUTS // BLOCK_SIZE, OUTPUTS)).astype(np.float16).astype(np.float64)
    return codes, scales, rng.standard_normal((ROWS, INPUTS)).astype(np.float16).astype(np.float64)


def make_dequantize_graph(
    float_type: int, scale_type: int | None = None, product_type: int | None = None, cast_scales: bool = False
) -> onnx.ModelProto:
    """Returns a graph that multiplies by a weight dequantized by DequantizeLinear, with casts where types differ.

    Args:
        float_type: Type of the input and the output.
        scale_type: Type of the stored scales; default: `float_type`.
        product_type: Type that is multiplied in; default: `float_type`.
        cast_scales: Whether scales are cast to `product_type`, rather than the weight after dequantization.
    """
    scale_type, product_type = scale_type or float_type, product_type or float_type
    codes, scales, _ = make_operands()
    nibbles = codes.ravel().view(np.uint8) & 15
    weight = helper.make_tensor(
        "codes", TensorProto.INT4, codes.shape, bytes(nibbles[::2] | nibbles[1::2] << 4), raw=True
    )
    nodes: list[onnx.NodeProto] = []

    def cast(value: str, source: int, target: int) -> str:
        if source == target:
            return value
        nodes.append(helper.make_node("Cast", [value], [f"{value}_cast"], to=target))
        return f"{value}_cast"

    x = cast("x", float_type, product_type)
    scale = cast("scales", scale_type, product_type) if cast_scales else "scales"
    nodes.append(helper.make_node("DequantizeLinear", ["codes", scale], ["weight"], axis=0, block_size=BLOCK_SIZE))
    dense = "weight" if cast_scales else cast("weight", scale_type, product_type)
    nodes.append(helper.make_node("MatMul", [x, dense], ["product"]))
    output = cast("product", product_type, float_type)
    scale_tensor = numpy_helper.from_array(scales.astype(helper.tensor_dtype_to_np_dtype(scale_type)), "scales")
    return _make_model(nodes, float_type, output, [weight, scale_tensor])


def make_nbits_graph(float_type: int, accuracy_level: int) -> onnx.ModelProto:
    """Returns a graph that multiplies by the same weight with MatMulNBits."""
    codes, scales, _ = make_operands()
    nibbles = (codes.T + 8).astype(np.uint8).reshape(OUTPUTS, -1, BLOCK_SIZE)
    operands = {
        "packed": nibbles[..., ::2] | nibbles[..., 1::2] << 4,
        "scales": np.ascontiguousarray(scales.T).astype(helper.tensor_dtype_to_np_dtype(float_type)),
    }
    sizes = {"K": INPUTS, "N": OUTPUTS, "bits": 4, "block_size": BLOCK_SIZE, "accuracy_level": accuracy_level}
    node = helper.make_node("MatMulNBits", ["x", *operands], ["product"], domain="com.microsoft", **sizes)
    tensors = [numpy_helper.from_array(array, name) for name, array in operands.items()]
    return _make_model([node], float_type, "product", tensors)


def _make_model(
    nodes: list[onnx.NodeProto], float_type: int, output: str, tensors: list[onnx.TensorProto]
) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info("x", float_type, [ROWS, INPUTS])]
    results = [helper.make_tensor_value_info(output, float_type, [ROWS, OUTPUTS])]
    graph = helper.make_graph(nodes, "product", ports, results, tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
ARRANGEMENTS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "`DequantizeLinear`, float32": lambda: make_dequantize_graph(SINGLE),
    "`DequantizeLinear`, float16 (recipe `orin`)": lambda: make_dequantize_graph(HALF),
    "`MatMulNBits`, float16, level 4": lambda: make_nbits_graph(HALF, 4),
    "tried: float32 scales, cast to float16": lambda: make_dequantize_graph(HALF, SINGLE, cast_scales=True),
    "tried: float32 weight, cast to float16": lambda: make_dequantize_graph(HALF, SINGLE),
    "tried: float32 product between casts": lambda: make_dequantize_graph(HALF, SINGLE, SINGLE),
}


def measure_error(model: onnx.ModelProto, level: str, entry: str | None) -> float | None:
    """Returns the relative error of a graph's output on the CPU; None if the output is all zeros.

    Args:
        model: A graph of this module.
        level: Optimization level, one of LEVELS.
        entry: Value of the session's accuracy level; None: it is not set.
    """
    codes, scales, x = make_operands()
    expected = x @ (codes * np.repeat(scales, BLOCK_SIZE, axis=0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    name = level if level == "DISABLE_ALL" else f"ENABLE_{level}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{name}")
    if entry is not None:
        options.add_session_config_entry(ACCURACY_LEVEL_ENTRY, entry)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=list(CPU_PROVIDERS))
    dtype: Any = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    output = session.run(None, {"x": x.astype(dtype)})[0].astype(np.float64)
    return float(np.linalg.norm(output - expected) / np.linalg.norm(expected)) if output.any() else None


def measure_rows() -> list[list[str]]:
    """Returns the table: a row for each arrangement and entry, a column for each level."""
    rows = []
    for title, make in ARRANGEMENTS.items():
        for entry in ENTRIES:
            errors = [measure_error(make(), level, entry) for level in LEVELS]
            cells = [ZEROS if error is None else f"{error:.0e}" for error in errors]
            rows.append([title, "not set" if entry is None else entry, *cells])
    return rows


@click.command(help=__doc__)
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/onnx.md.")
def main(print_only: bool) -> None:
    body = "\n\n".join(
        [
            "## Errors by session options",
            f"Relative error of a product of {ROWS} x {INPUTS} float values with INT4 weights, on the CPU, by the "
            f"session's optimization level and its entry `{ACCURACY_LEVEL_ENTRY}`. "
            f"ONNX Runtime {onnxruntime.__version__}.",
            render_table(["product", "entry", *LEVELS], measure_rows()),
        ]
    )
    if not print_only:
        write_section("onnx-session-options", "make bench-onnx-options", body)
    click.echo(body)


if __name__ == "__main__":
    main()
