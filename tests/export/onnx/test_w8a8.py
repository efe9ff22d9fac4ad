"""Pressed pipelines in products of 8-bit integers: codes carried over to the bit, rounding as in torch, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from edgepress.common.errors import UserError
from edgepress.export.graph.external_weights import Int8Layout
from edgepress.export.graph.int8_operands import Int8Linear
from edgepress.export.graph.passes.qdq_int8 import quantize_activations
from edgepress.export.onnx import exporter as module
from edgepress.export.onnx.exporter import ExportResult, export_onnx
from edgepress.export.onnx.prepare import plan_export
from edgepress.export.verification.golden import TorchReference, build_golden_inputs, compute_goldens
from edgepress.export.verification.parity import OrtRunner, compute_rounding_tolerance, measure_errors
from edgepress.models.base.host import load_host
from edgepress.quantize.algorithms.activation_rounding import fake_quantize_per_token
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.storage.checkpoint import Checkpoint

GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder")
BYTES = {"bits": 8, "group_size": "channel", "zero_point": False, "narrow": True}
KEPT = 1.3e-4  # of these random weights some linears lose more, some less
RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "also": {
            "token": BYTES | {"activations": "dynamic", "keep_above": KEPT},
            "tensor": BYTES | {"activations": "static"},
        },
    },
    "calibration": {"count": 2, "steps": 2},
}
DYNAMIC = ExportSettings(precision="w8a8")
STATIC = ExportSettings(precision="w8a8", activations="static", format="qdq")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pressed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pressed")
    quantize_pipeline(Recipe.model_validate(RECIPE), tiny, folder)
    return folder


@pytest.fixture(scope="module")
def dynamic(pressed: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export_onnx(pressed, tmp_path_factory.mktemp("dynamic"), DYNAMIC)


@pytest.fixture(scope="module")
def static(pressed: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export_onnx(pressed, tmp_path_factory.mktemp("static"), STATIC)


def solution(pressed: Path, name: str, component: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    folder = pressed / "model" / "solutions" / name / component
    (file,) = folder.glob("*.safetensors")
    return load_file(file), json.loads((folder / "config.json").read_text("utf-8"))


def operators(folder: Path, graph: str) -> list[onnx.NodeProto]:
    return list(onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph.node)


def test_without_rounding_activations_graphs_answer_as_torch_with_the_codes(
    dynamic: ExportResult, static: ExportResult
) -> None:
    """And with it they are further off, by what the layers' own errors allow."""
    for found in (dynamic, static):
        exact, rounded = found.parity["exact"], found.parity["exported"]
        assert set(exact.graphs) >= set(GRAPHS)
        assert max(error.relative for error in exact.graphs.values()) < 1e-5
        assert exact.psnr is None or exact.psnr > 60
        for name in ("text_encoder", "caption", "transformer"):
            assert rounded.graphs[name].relative > 100 * exact.graphs[name].relative
        assert rounded.psnr is not None
        assert rounded.psnr > 30


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_codes_scales_norms_and_kept_weights_are_those_of_the_solution(
    pressed: Path, dynamic: ExportResult, component: str
) -> None:
    solved, config = solution(pressed, "token", component)
    if component == "transformer":
        assert 0 < len(config["kept"]) < len(config["errors"])
    assert config["kept"] == [linear for linear, error in config["errors"].items() if error > KEPT]
    with safe_open(next(dynamic.folder.glob(f"{component}-*.safetensors")), "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for linear in config["errors"]:
        if linear in config["kept"]:
            assert torch.equal(found[f"{linear}.weight"], solved[f"{linear}.weight"])
            continue
        assert torch.equal(found[f"{linear}.qweight"].int(), solved[f"{linear}.qweight"].int() - 128)
        assert torch.equal(found[f"{linear}.scales"], solved[f"{linear}.scales"][0].float())
        assert f"{linear}.weight" not in found
    moved = [name for name in solved if "norm" in name]
    assert moved
    assert all(torch.equal(found[name], solved[name]) for name in moved)


def test_graphs_multiply_in_integers_where_a_linear_is_not_kept(pressed: Path, dynamic: ExportResult) -> None:
    _, config = solution(pressed, "token", "transformer")
    blocks = [name for name in config["errors"] if not name.startswith("context_refiner")]
    expected = len(blocks) - sum(name in blocks for name in config["kept"])
    kinds = [node.op_type for node in operators(dynamic.folder, "transformer")]
    assert kinds.count("MatMulIntegerToFloat") == expected
    assert "DequantizeLinear" not in kinds


def test_static_graphs_are_of_onnx_alone_and_say_their_scales(pressed: Path, static: ExportResult) -> None:
    solved, config = solution(pressed, "tensor", "text_encoder")
    for name in GRAPHS:
        onnx.checker.check_model(static.folder / f"{name}.onnx")
        assert not [node for node in operators(static.folder, name) if node.domain]
    nodes = operators(static.folder, "text_encoder")
    constants = [node for node in nodes if node.op_type == "Constant" and node.attribute[0].name == "value"]
    values = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in constants}
    said = [node for node in nodes if node.op_type == "QuantizeLinear"]
    scales = {
        np.float32(solved[f"{linear}.input_scale"]) for linear in config["errors"] if linear not in config["kept"]
    }
    assert {np.float32(values[node.input[1]]) for node in said} == scales
    assert {values[node.input[2]].dtype for node in said} == {np.dtype(np.int8)}


def test_rounding_is_that_of_torch(pressed: Path, dynamic: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch whose linears round their inputs too, graphs are nearer than against torch whose do not."""
    job = plan_export(pressed, dynamic.folder.parent, DYNAMIC, ())
    host = load_host(job.model.family, job.model.configs())
    reference = TorchReference(job.model.folder, job.model.family, job.solutions)
    cases = build_golden_inputs(host, reference.tokenize(host), job.sizes)
    graphs = OrtRunner({name: dynamic.folder / f"{name}.onnx" for name in GRAPHS})
    floats = measure_errors(compute_goldens(reference, host, cases), graphs)
    component = TorchReference.load_component

    def rounding(self: TorchReference, name: str) -> nn.Module:
        module = component(self, name)
        for linear in module.modules():
            if isinstance(linear, Int8Linear):
                linear.register_forward_pre_hook(lambda _, args: (fake_quantize_per_token(args[0]),))
        return module

    monkeypatch.setattr(TorchReference, "component", rounding)
    rounded = measure_errors(compute_goldens(reference, host, cases), graphs)
    for name in ("text_encoder", "caption", "transformer"):
        assert rounded[name].relative < 0.5 * floats[name].relative


def test_graphs_that_lose_more_than_their_layers_are_not_published(
    pressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs whose scales of activations are a hundred times too large."""

    def wrongly(model: ir.Model, linears: Mapping[str, Int8Layout], signed: bool) -> ir.Model:
        wrong = {
            name: Int8Layout(one.shape, one.input_scale and 100 * one.input_scale) for name, one in linears.items()
        }
        return quantize_activations(model, wrong, signed)

    monkeypatch.setattr(module, "round_activations", wrongly)
    with pytest.raises(UserError, match=r"The graph \w+ is off by .* nothing was published"):
        export_onnx(pressed, tmp_path, STATIC)
    assert not (tmp_path / "onnx").exists()


def test_what_rounding_may_cost_is_the_root_of_the_sum_of_errors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    for scale, expected in ((1, 4 * 0.05), (100, 0.25)):  # but never more than integers may cost at all
        (tmp_path / "config.json").write_text(json.dumps({"errors": {"a": scale * 9e-4, "b": scale * 16e-4}}))
        found = compute_rounding_tolerance([Checkpoint(tmp_path)])
        assert found.relative == pytest.approx(expected)
        assert found.psnr == 15


# ---------------------------------------------------------------- refusals


def test_a_model_without_such_a_solution_is_told_what_to_add(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no solution for static activations") as refused:
        export_onnx(tiny, tmp_path, STATIC)
    assert "w8a8: {bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static}" in str(
        refused.value
    )
    assert not (tmp_path / "onnx").exists()


def test_scales_of_tokens_cannot_be_written_in_onnx_alone(pressed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--activations static"):
        export_onnx(pressed, tmp_path, ExportSettings(precision="w8a8", format="qdq"))
