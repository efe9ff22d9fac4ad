#!/usr/bin/env bash
# OpenVINO 2026.4.1 on a CPU, told to compute in f32: a product with 4-bit weights rounds its activations to 8 bits in groups of
# 32 by default, without a message. An ONNX graph with MatMulNBits at accuracy_level 0, which ONNX Runtime computes in floats,
# is then half a per cent off. DYNAMIC_QUANTIZATION_GROUP_SIZE=0 switches it off.
#
# Seen on 2026-11-30:
#   ONNX Runtime: error 5.8e-07
#   OpenVINO, f32: error 5.4e-03
#   OpenVINO, f32, groups of 0: error 5.8e-07
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

ROWS, INPUTS, OUTPUTS, GROUP = 64, 1024, 256, 128
random = np.random.default_rng(0)
codes = random.integers(0, 256, (OUTPUTS, INPUTS // GROUP, GROUP // 2), np.uint8)
scales = random.uniform(0.01, 0.02, OUTPUTS * INPUTS // GROUP).astype(np.float32)
zeros = np.full(OUTPUTS * INPUTS // GROUP // 2, 0x88, np.uint8)
constants = {"codes": codes, "scales": scales, "zeros": zeros}
node = helper.make_node("MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", K=INPUTS, N=OUTPUTS, bits=4,
                        block_size=GROUP, accuracy_level=0)
graph = helper.make_graph(
    [node], "product", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, INPUTS])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, OUTPUTS])],
    [numpy_helper.from_array(array, name) for name, array in constants.items()],
)
opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), sys.argv[1])
x = random.standard_normal((ROWS, INPUTS)).astype(np.float32)

nibbles = np.stack([codes & 15, codes >> 4], -1).reshape(OUTPUTS, INPUTS).astype(np.float32)
exact = x @ ((nibbles - 8) * scales.reshape(OUTPUTS, -1).repeat(GROUP, 1)).T


def error(output):
    return float(np.linalg.norm(output - exact) / np.linalg.norm(exact))


seen = {"ONNX Runtime": error(onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": x})[0])}
for name, options in (("OpenVINO, f32", {}), ("OpenVINO, f32, groups of 0", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"})):
    model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})
    seen[name] = error(model({"x": x})[0])
for name, value in seen.items():
    print(f"{name}: error {value:.1e}")
first, rounded, plain = seen.values()
sys.exit(0 if first < 1e-5 < 1e-3 < rounded and plain < 1e-5 else 1)
PYTHON
"$folder/env/bin/python" "$folder/check.py" "$folder/graph.onnx"
