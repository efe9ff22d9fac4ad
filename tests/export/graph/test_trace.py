"""Traces graphs without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import load_component
from helpers.tiny import store_as_published

from edgepress.common.errors import UserError
from edgepress.export.graph.trace import trace_graph
from edgepress.export.graph.trace_cache import trace_cached
from edgepress.models.base.graph import Graph
from edgepress.models.registry import get_family
from edgepress.pipelines.empty_modules import build_empty_component

FAMILY = get_family("ZImagePipeline")


def get_graph(name: str) -> Graph:
    graph = FAMILY.graph(name)
    assert graph is not None
    return graph


def write_config(tiny: Path, component: str, folder: Path, **options: Any) -> Path:
    """Writes a component's folder without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((tiny / component / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | options), "utf-8")
    return folder


def weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: value for name, value in model.graph.initializers.items() if value.const_value is None}


@pytest.mark.slow
@pytest.mark.parametrize("name", [graph.name for graph in FAMILY.graphs])
def test_tracing_needs_only_the_config(tiny: Path, tmp_path: Path, name: str) -> None:
    """Other tests of this run may have traced it, also without its weights."""
    graph = get_graph(name)
    model = trace_cached(
        graph, write_config(tiny, graph.component, tmp_path, quantization_config={"quant_method": "awq"})
    )
    state = load_component(tiny, graph.component).state_dict()
    for key, value in weights(model).items():
        assert isinstance(value.shape, ir.Shape)
        assert value.shape.numpy() == tuple(state[key].shape)
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
def test_float16_weights_between_float32_inputs_and_outputs(tiny: Path) -> None:
    model = trace_cached(get_graph("caption"), tiny / "transformer", torch.float16)
    assert {value.dtype for value in weights(model).values()} == {ir.DataType.FLOAT16}
    assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    assert "RMSNormalization" in {node.op_type for node in model.graph}
    assert "ReduceMean" not in {node.op_type for node in model.graph}


@pytest.mark.slow
def test_a_published_text_encoder_has_the_names_of_the_plain_one(tiny: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny, tmp_path / "pipeline")
    store_as_published(tmp_path / "pipeline", head=True)
    names = weights(trace_graph(get_graph("text_encoder"), tmp_path / "pipeline" / "text_encoder"))
    assert set(names) < set(load_component(tiny, "text_encoder").state_dict())
    assert not [name for name in names if name.startswith("layers.2.")]


def test_a_component_is_built_without_memory(tiny: Path, tmp_path: Path) -> None:
    size = {"dim": 6144, "n_heads": 96, "n_kv_heads": 96, "n_layers": 60}  # 100 GB
    folder = write_config(tiny, "transformer", tmp_path, **size)
    assert {parameter.device.type for parameter in build_empty_component(folder).parameters()} == {"meta"}


def test_a_folder_without_a_config_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        build_empty_component(tmp_path)


def test_an_unknown_class_is_rejected(tiny: Path, tmp_path: Path) -> None:
    folder = write_config(tiny, "transformer", tmp_path, _class_name="NoSuchModel")
    with pytest.raises(UserError, match="names the class 'NoSuchModel', which diffusers does not have"):
        build_empty_component(folder)


@pytest.mark.slow
def test_nothing_of_the_exporting_machine_is_in_the_graph(tiny: Path) -> None:
    """torch notes paths and lines of source code at every node; the cache keeps what a trace notes."""
    content = ir.to_proto(trace_cached(get_graph("vae_decoder"), tiny / "vae")).SerializeToString()
    assert b".py" not in content
    assert b"stack_trace" not in content
