"""An artifact that ONNX Runtime really runs, made in no time: graphs with the demo's ports that hardly compute."""

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


def write_small_artifact(folder: Path) -> None:
    """Its pictures are enlarged noise."""
    shutil.copytree(DEMO_PIPELINE / "tokenizer", folder / "onnx" / "tokenizer")
    host = {name: _config(name, "config") for name in ("transformer", "vae")}
    host["scheduler"] = _config("scheduler", "scheduler_config")
    graphs = {name: {"file": f"{name}.onnx"} for name in PORTS}
    content = {"schema_version": 1, "family": read_pipeline_class(DEMO_PIPELINE), "graphs": graphs, "host": host}
    (folder / "onnx" / "pipeline.json").write_text(json.dumps(content), "utf-8")
    scales = np.array([1, 1, 8, 8], np.float32)
    _save(folder, "text_encoder", [("Cast", {"to": TensorProto.FLOAT}), ("Unsqueeze", {}, np.array([2]))])
    _save(folder, "caption", [("Neg", {})])
    _save(folder, "transformer", [("Neg", {})])
    decode = [
        ("Slice", {}, np.array([0]), np.array([3]), np.array([1])),
        ("Resize", {}, np.zeros(0, np.float32), scales),
    ]
    _save(folder, "vae_decoder", decode)


def _config(component: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEMO_PIPELINE / component / f"{name}.json").read_text("utf-8"))
    return found


def _save(folder: Path, name: str, steps: list[tuple[object, ...]]) -> None:
    """A graph that does steps to its first input; each is an operator, its attributes, and its further inputs."""
    nodes, constants, value = [], [], PORTS[name][0]
    for number, (operator, attributes, *more) in enumerate(steps):
        given = [numpy_helper.from_array(array, f"c{number}_{place}") for place, array in enumerate(more)]
        constants += given
        output = f"v{number}"
        nodes.append(helper.make_node(operator, [value, *(one.name for one in given)], [output], **attributes))
        value = output
    inputs = [_port(port) for port in PORTS[name]]
    graph = helper.make_graph(nodes, name, inputs, [onnx.ValueInfoProto(name=value)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "onnx" / f"{name}.onnx")


def _port(name: str) -> onnx.ValueInfoProto:
    kind = TensorProto.INT64 if name == "ids" else TensorProto.FLOAT
    rank = {"ids": 2, "timestep": 1, "latents": 4}.get(name, 2 if name in TABLES else 3)
    return helper.make_tensor_value_info(name, kind, [None] * rank)
