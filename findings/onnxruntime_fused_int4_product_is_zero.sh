#!/usr/bin/env bash
# ONNX Runtime 1.31.1 on x86: a float16 graph that multiplies by INT4 weights from a DequantizeLinear answers all zeros, without
# an error, at the optimization levels EXTENDED and LAYOUT with default settings. From EXTENDED on, the two operators are fused
# to MatMulNBits with accuracy level 4. The CPU has no such float16 kernel, so its scales are cast to float32 when the graph runs;
# the fused operator's weights were prepared before, without them. At ALL that cast is folded into a constant. The session's entry
# session.qdq_matmulnbits_accuracy_level=0 avoids it, and so do float32 graphs.
#
# Seen on 2026-11-30, as the relative error of the product:
#   float32: BASIC 1e-07, EXTENDED 6e-03, ALL 6e-03; EXTENDED with the entry at 0: 1e-07
#   float16: BASIC 3e-04, EXTENDED zeros, ALL 6e-03; EXTENDED with the entry at 0: 2e-04
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy
export ORT_DISABLE_TELEMETRY=1
"$folder/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

INPUTS, OUTPUTS, BLOCK = 64, 32, 32
rng = np.random.default_rng(0)
codes = rng.integers(-8, 8, (INPUTS, OUTPUTS), dtype=np.int8)
scales = rng.uniform(0.005, 0.02, (INPUTS // BLOCK, OUTPUTS)).astype(np.float16)
x = rng.standard_normal((4, INPUTS)).astype(np.float16)
expected = x.astype(np.float64) @ (codes * np.repeat(scales.astype(np.float64), BLOCK, axis=0))


def error(float_type, level, entry=None):
    dtype = helper.tensor_dtype_to_np_dtype(float_type)
    nibbles = codes.ravel().view(np.uint8) & 15
    packed = bytes(nibbles[::2] | nibbles[1::2] << 4)
    weights = [
        helper.make_tensor("w", TensorProto.INT4, codes.shape, packed, raw=True),
        numpy_helper.from_array(scales.astype(dtype), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, float_type, [4, width]) for name, width in (("x", INPUTS), ("y", OUTPUTS))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    if entry is not None:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", entry)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x.astype(dtype)})[0].astype(np.float64)
    return f"{np.linalg.norm(y - expected) / np.linalg.norm(expected):.0e}" if y.any() else "zeros"


for name, float_type in (("float32", TensorProto.FLOAT), ("float16", TensorProto.FLOAT16)):
    levels = ", ".join(f"{level} {error(float_type, level)}" for level in ("BASIC", "EXTENDED", "ALL"))
    print(f"{name}: {levels}; EXTENDED with the entry at 0: {error(float_type, 'EXTENDED', '0')}")
sys.exit(0 if error(TensorProto.FLOAT16, "EXTENDED") == "zeros" else 1)
PYTHON
