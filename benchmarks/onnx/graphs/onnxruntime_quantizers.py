"""What ONNX Runtime's own quantizers make of exported fp32 graphs, of the same linears that are pressed here."""

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

from ....runtime.onnx import exported

ACCURACY_LEVEL = 4  # the accuracy level of what they make


def quantize(tool: str, options: Mapping[str, Any], source: Path, quantized: Path, target: Path) -> None:
    """Writes a folder of graphs like `source`, its linears quantized where `pressed` has them in 4 bits."""
    target.mkdir()
    for name in ("pipeline.json", "tokenizer"):
        (shutil.copytree if (source / name).is_dir() else shutil.copyfile)(source / name, target / name)
    for name, file in exported.load_exported_onnx(source).graph_files.items():
        model = onnx.load(str(file))
        nodes = _transpose_weights(model, _find_int4_linears(exported.load_exported_onnx(quantized).graph_files[name]))
        if not nodes:
            _save(model, target / file.name)
        elif tool == "nbits":
            _quantize_blockwise(model, nodes, options, target / file.name)
        else:
            _quantize_int8(model, nodes, target / file.name)


def _find_int4_linears(graph: Path) -> set[str]:
    """The linears that a graph has in 4 bits."""
    names = [tensor.name for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer]
    return {name.removesuffix(".qweight") for name in names if name.endswith(".qweight")}


def _transpose_weights(model: onnx.ModelProto, linears: set[str]) -> list[str]:
    """Transposes the weights of linears in the file instead of in the graph; gives the names of their products."""
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
    size, products = options["group_size"], [node.name for node in model.graph.node if node.op_type == "MatMul"]
    quantizer = nbits.MatMulNBitsQuantizer(
        model,
        block_size=size,
        is_symmetric=False,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=[name for name in products if name not in nodes],
        algo_config=_algorithm(options["algorithm"], size),
    )
    quantizer.process()
    _save(quantizer.model.model, file)


def _algorithm(name: str, size: int) -> Any:
    """None is the quantizer's default one, rounding."""
    configs: dict[str, Any] = {"hqq": nbits.HQQWeightOnlyQuantConfig(block_size=size)}
    return nbits.KQuantWeightOnlyQuantConfig() if name == "k_quant" else configs.get(name)


def _quantize_int8(model: onnx.ModelProto, nodes: Sequence[str], file: Path) -> None:
    del model.graph.value_info[:]  # the tool infers shapes anew, and does not get over weights that were turned
    quantize_dynamic(
        model,
        str(file),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(nodes),
        use_external_data_format=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # after operators of ONNX Runtime's own
    )


def _save(model: onnx.ModelProto, file: Path) -> None:
    onnx.save(model, str(file), save_as_external_data=True, location=f"{file.name}.data")
