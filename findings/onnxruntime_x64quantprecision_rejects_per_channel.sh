#!/usr/bin/env bash
# ONNX Runtime 1.31.1 on x86: the session option `session.x64quantprecision`, documented as making products of 8-bit integers
# precise on processors without VNNI, makes a valid graph fail at run time: a DequantizeLinear of int8 weights with one scale
# per channel and no zero points. The option turns the weights into uint8 and gives them one zero point where the operator
# then demands one per channel. With explicit zero points, or without the option, the same graph runs.
#
# Seen on 2026-11-29:
#   without the option: runs
#   with the option, without zero points: fails
#   with the option, with zero points: runs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy
"$folder/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def graph(zero_points):
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.integers(-127, 128, (16, 8), dtype=np.int8), "w"),
        numpy_helper.from_array(np.full(8, 0.01, np.float32), "s"),
    ]
    inputs = ["w", "s"]
    if zero_points:
        weights.append(numpy_helper.from_array(np.zeros(8, np.int8), "z"))
        inputs.append("z")
    nodes = [helper.make_node("DequantizeLinear", inputs, ["d"], axis=1), helper.make_node("MatMul", ["x", "d"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, width]) for name, width in (("x", 16), ("y", 8))]
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], weights), opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(zero_points, precise):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        ort.InferenceSession(graph(zero_points), options).run(None, {"x": np.ones((4, 16), np.float32)})
    except Exception:
        return "fails"
    return "runs"


seen = [run(False, False), run(False, True), run(True, True)]
print("without the option:", seen[0])
print("with the option, without zero points:", seen[1])
print("with the option, with zero points:", seen[2])
sys.exit(0 if seen == ["runs", "fails", "runs"] else 1)
PYTHON
