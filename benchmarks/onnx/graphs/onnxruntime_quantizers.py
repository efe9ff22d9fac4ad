"""Quantizes exported fp32 graphs with ONNX Runtime's own tools, the same linear layers that edgepress quantizes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from ....runtime.onnx.exported import load_exported_onnx
from ....storage.pipeline_config import read_onnx_config, write_config

ACCURACY_LEVEL = 4


def quantize_graphs(tool: str, options: Mapping[str, Any], source: Path, quantized: Path, target: Path) -> None:
    """Writes a folder of graphs like `source`, with linear layers quantized by a tool of ONNX Runtime.

    Args:
        tool: "nbits" (`MatMulNBitsQuantizer`) or "dynamic" (`quantize_dynamic`).
        options: For "nbits", `algorithm` and `group_size`.
        source: The exported fp32 graphs.
        quantized: The exported int4 graphs, which say which layers to quantize.
        target: The folder to create.
    """
    target.mkdir()
    shutil.copytree(source / "tokenizer", target / "tokenizer")
    quantized_graphs = load_exported_onnx(quantized).graph_files
    for name, file in load_exported_onnx(source).graph_files.items():
        model = onnx.load(str(file))
        nodes = _transpose_weights(model, _find_int4_linears(quantized_graphs[name]))
        if not nodes:
            _save(model, target / file.name)
        elif tool == "nbits":
            _quantize_blockwise(model, nodes, options, target / file.name)
        else:
            _quantize_int8(model, nodes, target / file.name)
    write_config(read_onnx_config(source), target)


def _find_int4_linears(graph: Path) -> set[str]:
    """Returns the names of the linear layers that a graph has in 4 bits."""
    names = [tensor.name for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer]
    return {name.removesuffix(".qweight") for name in names if name.endswith(".qweight")}


def _transpose_weights(model: onnx.ModelProto, linears: set[str]) -> list[str]:
    """Transposes the weights of linear layers in the file, not in the graph; returns the names of their MatMuls."""
    graph, weights = model.graph, {f"{linear}.weight" for linear in linears}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    transposes = [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]
    for node in transposes:
        matrix = numpy_helper.to_array(tensors[node.input[0]])
        tensors[node.input[0]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(matrix.T), node.output[0]))
        graph.node.remove(node)
    outputs = {node.output[0] for node in transposes}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in outputs]


def _quantize_blockwise(model: onnx.ModelProto, nodes: Sequence[str], options: Mapping[str, Any], file: Path) -> None:
    group_size = options["group_size"]
    matmuls = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    quantizer = nbits.MatMulNBitsQuantizer(
        model,
        block_size=group_size,
        is_symmetric=False,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=[name for name in matmuls if name not in nodes],
        algo_config=_make_algorithm_config(options["algorithm"], group_size),
    )
    quantizer.process()
    _save(quantizer.model.model, file)


def _make_algorithm_config(name: str, group_size: int) -> Any:
    """Returns the config of an algorithm; None means rounding to nearest."""
    configs: dict[str, Any] = {"hqq": nbits.HQQWeightOnlyQuantConfig(block_size=group_size)}
    return nbits.KQuantWeightOnlyQuantConfig() if name == "k_quant" else configs.get(name)


def _quantize_int8(model: onnx.ModelProto, nodes: Sequence[str], file: Path) -> None:
    del model.graph.value_info[:]  # the tool infers shapes itself, and fails on those from before the transposition
    quantize_dynamic(
        model,
        str(file),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(nodes),
        use_external_data_format=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # for outputs of contrib operators
    )


def _save(model: onnx.ModelProto, file: Path) -> None:
    onnx.save(model, str(file), save_as_external_data=True, location=f"{file.name}.data")
