"""Tracing a component's graph without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import load
from helpers.tiny import store_as_published

from edgepress.common.errors import UserError
from edgepress.export.graph.trace import build_empty_component, trace_graph
from edgepress.models.base.graph import Graph
from edgepress.models.registry import get_family

FAMILY = get_family("ZImagePipeline")


def graph_named(name: str) -> Graph:
    graph = FAMILY.graph(name)
    assert graph is not None
    return graph


def config_only(tiny: Path, component: str, folder: Path, **more: Any) -> Path:
    """A component's folder without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((tiny / component / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | more), "utf-8")
    return folder


def weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: value for name, value in model.graph.initializers.items() if value.const_value is None}


@pytest.mark.slow
@pytest.mark.parametrize("name", [graph.name for graph in FAMILY.graphs])
def test_a_graph_needs_the_config_alone(tiny: Path, tmp_path: Path, name: str) -> None:
    graph = graph_named(name)
    model = trace_graph(
        graph, config_only(tiny, graph.component, tmp_path, quantization_config={"quant_method": "awq"})
    )
    stored = load(tiny, graph.component).state_dict()
    for key, value in weights(model).items():
        assert isinstance(value.shape, ir.Shape)
        assert value.shape.numpy() == tuple(stored[key].shape)
        assert value.dtype == ir.DataType.FLOAT
    for ports, values in ((graph.inputs, model.graph.inputs), (graph.outputs, model.graph.outputs)):
        for port, value in zip(ports, values, strict=True):
            assert value.name == port.name
            assert value.dtype == ir.DataType[{"float32": "FLOAT", "int64": "INT64"}[port.dtype]]
            assert value.shape is not None
            sizes = [str(size) if axis else None for axis, size in zip(port.axes, value.shape, strict=True)]
            assert sizes == list(port.axes)
            assert all(isinstance(size, int) for axis, size in zip(port.axes, value.shape, strict=True) if not axis)


@pytest.mark.slow
def test_weights_of_float16_between_inputs_and_outputs_of_float32(tiny: Path) -> None:
    model = trace_graph(graph_named("caption"), tiny / "transformer", torch.float16)
    assert {value.dtype for value in weights(model).values()} == {ir.DataType.FLOAT16}
    assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    assert "RMSNormalization" in {node.op_type for node in model.graph}
    assert "ReduceMean" not in {node.op_type for node in model.graph}


@pytest.mark.slow
def test_a_published_text_encoder_has_the_names_of_the_plain_one(tiny: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny, tmp_path / "pipeline")
    store_as_published(tmp_path / "pipeline", head=True)
    found = weights(trace_graph(graph_named("text_encoder"), tmp_path / "pipeline" / "text_encoder"))
    assert set(found) < set(load(tiny, "text_encoder").state_dict())
    assert not [name for name in found if name.startswith("layers.2.")]


def test_a_component_is_made_without_memory(tiny: Path, tmp_path: Path) -> None:
    folder = config_only(tiny, "transformer", tmp_path, n_layers=3000)
    assert {parameter.device.type for parameter in build_empty_component(folder).parameters()} == {"meta"}


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        build_empty_component(tmp_path)


def test_a_class_that_is_not_there(tiny: Path, tmp_path: Path) -> None:
    folder = config_only(tiny, "transformer", tmp_path, _class_name="NoSuchModel")
    with pytest.raises(UserError, match="names the class 'NoSuchModel', which diffusers does not have"):
        build_empty_component(folder)
