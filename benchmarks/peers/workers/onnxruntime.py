"""ONNX Runtime: `MatMulNBitsQuantizer` with each of its algorithms, on a graph with one MatMul for every layer.

The dequantized weight is the output of the runtime's own kernel for the identity, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits
from torch import Tensor

from .job import QuantizeJob
from .layers import DequantizedLayer, iter_linears, observe_inputs, run_calibration

PACKAGE = "onnxruntime"
MAX_SAMPLES = 4096  # tokens per layer for GPTQ


def quantize(pipeline: Any, job: QuantizeJob) -> dict[str, Any]:
    inputs = _sample_inputs(pipeline, job) if job.options["algorithm"] == "gptq" else {}
    models = {}
    for name, module in iter_linears(pipeline, job):
        quantizer = nbits.MatMulNBitsQuantizer(
            _make_matmul_model(module.weight),
            block_size=job.options["group_size"],
            accuracy_level=0,
            algo_config=_make_config(job.options, inputs.get(name)),
        )
        quantizer.process()
        models[name] = quantizer.model.model
    return models


def read(_: Any, __: QuantizeJob, models: dict[str, Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, model in models.items():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        columns = session.run(None, {"x": np.eye(_input_width(model), dtype=np.float32)})[0]
        stored = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        yield name, DequantizedLayer(torch.from_numpy(columns).T, sum(8 * array.nbytes for array in stored))


def _make_config(options: dict[str, Any], inputs: Tensor | None) -> Any:
    """Returns the configuration of an algorithm; None means rounding to nearest."""
    size = options["group_size"]
    if options["algorithm"] == "rtn":
        return nbits.RTNWeightOnlyQuantConfig()
    if options["algorithm"] == "k_quant":
        return nbits.KQuantWeightOnlyQuantConfig()
    if options["algorithm"] == "hqq":
        return nbits.HQQWeightOnlyQuantConfig(block_size=size)
    if inputs is not None:
        return nbits.GPTQWeightOnlyQuantConfig([{"x": inputs.numpy()}], block_size=size)
    return None


def _make_matmul_model(weight: Tensor) -> Any:
    """Returns a model that computes x @ W for a weight (out, in)."""
    columns: npt.NDArray[np.float32] = weight.detach().float().T.contiguous().numpy()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", columns.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", columns.shape[1]])],
        [numpy_helper.from_array(columns, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _input_width(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def _sample_inputs(pipeline: Any, job: QuantizeJob) -> dict[str, Tensor]:
    """Returns a random sample of the tokens that reach each layer while the calibration prompts run."""
    collected: dict[str, list[Tensor]] = {name: [] for name, _ in iter_linears(pipeline, job)}
    with observe_inputs(pipeline, job, {name: rows.append for name, rows in collected.items()}):
        run_calibration(pipeline, job)
    generator = torch.Generator().manual_seed(0)
    sampled = {}
    for name, rows in collected.items():
        tokens = torch.cat(rows).float()
        sampled[name] = tokens[torch.randperm(len(tokens), generator=generator)[:MAX_SAMPLES]]
    return sampled
