"""Graphs of fixed shapes: inputs select the file of their shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.small_artifact import write_small_artifact

from edgepress.common.errors import UserError
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket, select_bucket
from edgepress.runtime.pipeline import ImagePipeline

INPUT_AXES: dict[str, tuple[int | str, ...]] = {"patches": (1, "N", 64), "caption": (1, "L", 32), "time": (1,)}
GRAPHS = {
    "fixed": BucketedGraph(
        INPUT_AXES, [ShapeBucket("small", {"N": 32, "L": 32}), ShapeBucket("large", {"N": 64, "L": 32})]
    ),
    "dynamic": BucketedGraph(INPUT_AXES, [ShapeBucket("any", {})]),
}


def make_inputs(patches: int, tokens: int) -> dict[str, Any]:
    return {"patches": np.zeros((1, patches, 64)), "caption": np.zeros((1, tokens, 32)), "time": np.zeros(1)}


def test_bucket_of_the_input_shapes_is_selected() -> None:
    assert select_bucket(GRAPHS, "fixed", make_inputs(32, 32)) == "small"
    assert select_bucket(GRAPHS, "fixed", make_inputs(64, 32)) == "large"


def test_dynamic_graph_has_one_file() -> None:
    assert select_bucket(GRAPHS, "dynamic", make_inputs(7, 9)) == "any"


def test_missing_shape_names_the_exported_ones() -> None:
    with pytest.raises(UserError, match="exported for N=32, L=32; N=64, L=32, but N=32, L=64 was requested"):
        select_bucket(GRAPHS, "fixed", make_inputs(32, 64))


def test_missing_graph_names_the_exported_ones() -> None:
    with pytest.raises(UserError, match=r"'unet' is not in pipeline\.json, which lists fixed, dynamic"):
        select_bucket(GRAPHS, "unet", {})


def test_graphs_without_axes_that_vary_run_beside_those_of_fixed_shapes(tmp_path: Path) -> None:
    """Such as a text encoder whose prompts all have one length."""
    (tmp_path / "onnx").mkdir()
    write_small_artifact(tmp_path)
    file = tmp_path / "onnx" / "pipeline.json"
    config = json.loads(file.read_text("utf-8"))
    dynamic = ImagePipeline(tmp_path).generate(GenerationRequest("a", steps=2, size=(64, 64)))
    for name, graph in config["graphs"].items():
        model = onnx.load(tmp_path / "onnx" / f"{name}.onnx").graph
        graph["inputs"] = [
            {"name": port.name, "dtype": "float32", "shape": [1] * len(port.type.tensor_type.shape.dim)}
            for port in model.input
        ]
    latents = config["graphs"]["vae_decoder"]
    latents["inputs"][0]["shape"] = [1, 16, "h", "w"]
    latents["buckets"] = [{"file": f"{latents.pop('file')}", "axes": {"h": 8, "w": 8}}]
    file.write_text(json.dumps(config | {"sizes": [[64, 64]]}), "utf-8")
    pipeline = ImagePipeline(tmp_path)
    assert pipeline.image_sizes == ((64, 64),)
    assert pipeline.generate(GenerationRequest("a", steps=2)) == dynamic
