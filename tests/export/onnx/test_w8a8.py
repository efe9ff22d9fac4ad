"""Exports with int8 products: codes are exact, activations are quantized as in torch, and what is rejected."""

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
from helpers.tiles import without_tile_graphs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from edgepress.common.errors import UserError
from edgepress.export.graph.external_weights import Int8Layout
from edgepress.export.graph.int8_operands import Int8Linear
from edgepress.export.graph.passes.qdq_int8 import quantize_activations
from edgepress.export.onnx import writer
from edgepress.export.onnx.exporter import ExportResult, export_onnx
from edgepress.export.onnx.preflight import check_inputs
from edgepress.export.onnx.prepare import plan_export
from edgepress.export.verification.golden import TorchReference, build_golden_inputs, compute_goldens
from edgepress.export.verification.parity import OrtRunner, compute_rounding_tolerance, measure_errors
from edgepress.models.base.host import load_host
from edgepress.quantize.algorithms.activation_rounding import fake_quantize_per_token
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.runtime.onnx.sessions import saturates_int8
from edgepress.storage.checkpoint import Checkpoint

GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder")
INT8 = {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True}
MAX_ERROR = 1.3e-4  # between the errors of these random weights
RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "extra_schemes": {
            "token": INT8 | {"activations": "dynamic", "max_output_error": MAX_ERROR},
            "tensor": INT8 | {"activations": "static"},
        },
    },
    "calibration": {"count": 2, "steps": 2},
}
DYNAMIC = ExportSettings(precision="w8a8")
STATIC = ExportSettings(precision="w8a8", activations="static", format="qdq")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    quantize_pipeline(Recipe.model_validate(RECIPE), tiny, folder)
    return folder


@pytest.fixture(scope="module")
def dynamic(quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    with without_tile_graphs():
        return export_onnx(quantized, tmp_path_factory.mktemp("dynamic"), DYNAMIC)


@pytest.fixture(scope="module")
def static(quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    with without_tile_graphs():
        return export_onnx(quantized, tmp_path_factory.mktemp("static"), STATIC)


def solution(quantized: Path, name: str, component: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    folder = quantized / "model" / "solutions" / name / component
    (file,) = folder.glob("*.safetensors")
    return load_file(file), json.loads((folder / "config.json").read_text("utf-8"))


def operators(folder: Path, graph: str) -> list[onnx.NodeProto]:
    return list(onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph.node)


def test_graphs_equal_torch_apart_from_quantized_activations(dynamic: ExportResult, static: ExportResult) -> None:
    """With quantized activations the error is larger, within what the errors of the layers allow."""
    for result in (dynamic, static):
        exact, rounded = result.parity["exact"], result.parity["exported"]
        assert set(exact.graphs) >= set(GRAPHS)
        assert max(error.relative for error in exact.graphs.values()) < 1e-5
        assert exact.psnr is None or exact.psnr > 60
        for name in ("text_encoder", "caption", "transformer"):
            assert rounded.graphs[name].relative > 100 * exact.graphs[name].relative
        assert rounded.psnr is not None
        assert rounded.psnr > 30


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_codes_scales_norms_and_float_weights_are_those_of_the_solution(
    quantized: Path, dynamic: ExportResult, component: str
) -> None:
    tensors, config = solution(quantized, "token", component)
    if component == "transformer":
        assert 0 < len(config["float_modules"]) < len(config["errors"])
    assert config["float_modules"] == [linear for linear, error in config["errors"].items() if error > MAX_ERROR]
    with safe_open(next(dynamic.folder.glob(f"{component}-*.safetensors")), "pt") as file:
        published = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for linear in config["errors"]:
        if linear in config["float_modules"]:
            assert torch.equal(published[f"{linear}.weight"], tensors[f"{linear}.weight"])
            continue
        assert torch.equal(published[f"{linear}.qweight"].int(), tensors[f"{linear}.qweight"].int() - 128)
        assert torch.equal(published[f"{linear}.scales"], tensors[f"{linear}.scales"][0].float())
        assert f"{linear}.weight" not in published
    norms = [name for name in tensors if "norm" in name]
    assert norms
    assert all(torch.equal(published[name], tensors[name]) for name in norms)


def test_graphs_multiply_in_int8_unless_a_linear_stays_float(quantized: Path, dynamic: ExportResult) -> None:
    _, config = solution(quantized, "token", "transformer")
    blocks = [name for name in config["errors"] if not name.startswith("context_refiner")]
    expected = len(blocks) - sum(name in blocks for name in config["float_modules"])
    kinds = [node.op_type for node in operators(dynamic.folder, "transformer")]
    assert kinds.count("MatMulIntegerToFloat") == expected
    assert "DequantizeLinear" not in kinds


def test_static_graphs_are_standard_onnx_with_the_scales_of_the_solution(quantized: Path, static: ExportResult) -> None:
    tensors, config = solution(quantized, "tensor", "text_encoder")
    for name in GRAPHS:
        onnx.checker.check_model(static.folder / f"{name}.onnx")
        assert not [node for node in operators(static.folder, name) if node.domain]
    nodes = operators(static.folder, "text_encoder")
    constants = [node for node in nodes if node.op_type == "Constant" and node.attribute[0].name == "value"]
    values = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in constants}
    quantize_nodes = [node for node in nodes if node.op_type == "QuantizeLinear"]
    scales = {
        np.float32(tensors[f"{linear}.input_scale"])
        for linear in config["errors"]
        if linear not in config["float_modules"]
    }
    assert {np.float32(values[node.input[1]]) for node in quantize_nodes} == scales
    assert {values[node.input[2]].dtype for node in quantize_nodes} == {np.dtype(np.int8)}


@pytest.mark.skipif(
    saturates_int8(), reason="this CPU has no VNNI, so products saturate in graphs with DequantizeLinear"
)
def test_activations_are_quantized_as_in_torch(
    quantized: Path, dynamic: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs are closer to torch with quantized inputs of linear layers than to torch without."""
    plan = plan_export(check_inputs(quantized, dynamic.folder.parent, DYNAMIC, ()))
    host = load_host(plan.source.family, plan.source.configs)
    reference = TorchReference(plan.source.folder, plan.source.family, plan.solutions)
    inputs = build_golden_inputs(host, reference.tokenize(host), plan.sizes)
    graphs = OrtRunner({name: dynamic.folder / f"{name}.onnx" for name in GRAPHS})
    floats = measure_errors(compute_goldens(reference, host, inputs), graphs)
    load_component = TorchReference.load_component

    def load_with_quantized_inputs(self: TorchReference, name: str) -> nn.Module:
        module = load_component(self, name)
        for linear in module.modules():
            if isinstance(linear, Int8Linear):
                linear.register_forward_pre_hook(lambda _, args: (fake_quantize_per_token(args[0]),))
        return module

    monkeypatch.setattr(TorchReference, "load_component", load_with_quantized_inputs)
    rounded = measure_errors(compute_goldens(reference, host, inputs), graphs)
    for name in ("text_encoder", "caption", "transformer"):
        assert rounded[name].relative < 0.5 * floats[name].relative


def test_graphs_with_larger_errors_than_their_layers_are_not_published(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scales of activations are a hundred times too large."""

    def quantize_with_wrong_scales(model: ir.Model, linears: Mapping[str, Int8Layout], signed: bool) -> ir.Model:
        wrong = {
            name: Int8Layout(layout.shape, layout.input_scale and 100 * layout.input_scale)
            for name, layout in linears.items()
        }
        return quantize_activations(model, wrong, signed)

    monkeypatch.setattr(writer, "quantize_activations", quantize_with_wrong_scales)
    message = r"Graph \'\w+\' deviates from torch by .* nothing was published"
    with without_tile_graphs(), pytest.raises(UserError, match=message):
        export_onnx(quantized, tmp_path, STATIC)
    assert not (tmp_path / "onnx").exists()


def test_the_rounding_tolerance_is_the_root_of_the_sum_of_errors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    for scale, expected in ((1, 4 * 0.05), (100, 0.25)):  # capped by INT8_TOLERANCE
        (tmp_path / "config.json").write_text(json.dumps({"errors": {"a": scale * 9e-4, "b": scale * 16e-4}}))
        tolerance = compute_rounding_tolerance([Checkpoint(tmp_path)])
        assert tolerance.relative == pytest.approx(expected)
        assert tolerance.psnr == 15


# ---------------------------------------------------------------- what is rejected


def test_a_missing_solution_is_reported_with_the_scheme_to_add(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no INT8 solution with static activations") as error:
        export_onnx(tiny, tmp_path, STATIC)
    assert "w8a8: {bits: 8, group_size: channel, symmetric: true, narrow_range: true, activations: static}" in str(
        error.value
    )
    assert not (tmp_path / "onnx").exists()


def test_qdq_does_not_support_dynamic_activations(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not support dynamic activations"):
        export_onnx(quantized, tmp_path, ExportSettings(precision="w8a8", format="qdq"))
