"""A small artifact that ONNX Runtime can run: graphs with the ports of the demo that compute little."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepress.pipelines.hub import DEMO_PIPELINE, read_pipeline_class

TABLES = ("cos", "sin", "image_cos", "image_sin", "caption_cos", "caption_sin")
PORTS = {
    "text_encoder": ["ids"],
    "caption": ["hidden", "pad", *TABLES[:2]],
    "transformer": ["patches", "pad", "timestep", "caption", *TABLES[2:]],
    "vae_decoder": ["latents"],
}
ENCODER, LATENT_CHANNELS, VAE_SCALE = "vae_encoder", 16, 8
TOKEN_CHANNELS = 64  # of the demo's transformer: 16 latent channels in patches of 2 x 2
STEP_WIDTH = 8192  # of two products that cancel; thousands of steps take seconds, also on a fast processor


def write_small_artifact(folder: Path, has_encoder: bool = False) -> None:
    """Writes the artifact; its images are upsampled noise. An encoder reads images, and forgets them."""
    shutil.copytree(DEMO_PIPELINE / "tokenizer", folder / "onnx" / "tokenizer")
    host = {name: _read_config(name, "config") for name in ("transformer", "vae")}
    host["scheduler"] = _read_config("scheduler", "scheduler_config")
    names = [*PORTS, *([ENCODER] if has_encoder else [])]
    graphs = {name: {"file": f"{name}.onnx"} for name in names}
    content = {"schema_version": 1, "family": read_pipeline_class(DEMO_PIPELINE), "graphs": graphs, "host": host}
    (folder / "onnx" / "pipeline.json").write_text(json.dumps(content), "utf-8")
    scales = np.array([1, 1, 8, 8], np.float32)
    _save_graph(folder, "text_encoder", [("Cast", {"to": TensorProto.FLOAT}), ("Unsqueeze", {}, np.array([2]))])
    _save_graph(folder, "caption", [("Neg", {})])
    if has_encoder:
        kernel = np.zeros((2 * LATENT_CHANNELS, 3, VAE_SCALE, VAE_SCALE), np.float32)
        _save_graph(folder, ENCODER, [("Conv", {"strides": [VAE_SCALE, VAE_SCALE]}, kernel)])
    widen = np.eye(TOKEN_CHANNELS, STEP_WIDTH, dtype=np.float32)
    _save_graph(folder, "transformer", [("Neg", {}), ("MatMul", {}, widen), ("MatMul", {}, widen.T.copy())])
    decode = [
        ("Slice", {}, np.array([0]), np.array([3]), np.array([1])),
        ("Resize", {}, np.zeros(0, np.float32), scales),
    ]
    _save_graph(folder, "vae_decoder", decode)


def _read_config(component: str, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DEMO_PIPELINE / component / f"{name}.json").read_text("utf-8"))
    return config


def _save_graph(folder: Path, name: str, operators: list[tuple[object, ...]]) -> None:
    """Saves a graph that applies operators to its first input; each has attributes and constant inputs."""
    ports = PORTS.get(name, ["image"])
    nodes, constants, value = [], [], ports[0]
    for number, (operator, attributes, *arrays) in enumerate(operators):
        tensors = [numpy_helper.from_array(array, f"c{number}_{index}") for index, array in enumerate(arrays)]
        constants += tensors
        output = f"v{number}"
        nodes.append(helper.make_node(operator, [value, *(tensor.name for tensor in tensors)], [output], **attributes))
        value = output
    inputs = [_make_port(port) for port in ports]
    graph = helper.make_graph(nodes, name, inputs, [onnx.ValueInfoProto(name=value)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "onnx" / f"{name}.onnx")


def _make_port(name: str) -> onnx.ValueInfoProto:
    kind = TensorProto.INT64 if name == "ids" else TensorProto.FLOAT
    rank = {"ids": 2, "timestep": 1, "latents": 4, "image": 4}.get(name, 2 if name in TABLES else 3)
    return helper.make_tensor_value_info(name, kind, [None] * rank)
