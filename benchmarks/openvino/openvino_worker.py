"""Runs a graph with OpenVINO on the CPU. `__main__.py` runs this in an environment without edgepress.

    python openvino_worker.py GRAPH.onnx INPUTS.npz RESULT PRECISION REPEATS

PRECISION is `exact` for f32 with activations as they are, `f32`, or `default` for what OpenVINO chooses. In the last
two it rounds activations to 8 bits, in groups, where weights have 4 bits. RESULT.json holds seconds, the precision in
use and the number of constants that the compiled model holds by type; RESULT.npy the first output.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import openvino

HINT, GROUP_SIZE = "INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE"
OPTIONS = {"exact": {HINT: "f32", GROUP_SIZE: "0"}, "f32": {HINT: "f32"}, "default": {}}


def main(graph: str, inputs_file: str, result: str, precision: str, repeats: str) -> None:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", OPTIONS[precision])
    with np.load(inputs_file) as stored:
        inputs = {name: stored[name] for name in stored.files}
    request = compiled.create_infer_request()
    seconds = []
    for _ in range(1 + int(repeats)):
        started = perf_counter()
        outputs = request.infer(inputs)
        seconds.append(perf_counter() - started)
    np.save(f"{result}.npy", np.asarray(outputs[0], np.float32))
    content = {
        "version": openvino.__version__,
        "precision": compiled.get_property(HINT).get_type_name(),
        "group_size": int(compiled.get_property(GROUP_SIZE)),
        "first": seconds[0],
        "later": seconds[1:],
        "constants": count_constants(compiled),
    }
    with open(f"{result}.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(content, file)


def count_constants(compiled: Any) -> dict[str, int]:
    """The number of constants of a compiled model, by the type in which it holds them."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) == "Const":
            shape = node.get_output_partial_shape(0)
            if shape.is_static:
                counts[info["outputPrecisions"].astype(str)] += prod(side.get_length() for side in shape)
    return dict(counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
