"""A small pipeline exported with the toolkit and simulated, and exports that fail and leave the artifact unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from helpers.previous_export import check_untouched
from helpers.toolkit import needs_toolkit
from onnx import TensorProto, helper, numpy_helper

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.rknn.building.acceptance import get_rejection_reason
from edgepress.export.rknn.building.simulation import BuildRequest, GoldenSample, build_and_simulate
from edgepress.export.rknn.exporter import export_rknn
from edgepress.export.rknn.preflight import check_inputs
from edgepress.export.rknn.prepare import prepare_job
from edgepress.models.base.host import run_first_outputs
from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.recipes.rknn import RknnSettings
from edgepress.recipes.schema import Recipe
from edgepress.runtime.rknn import toolkit as module
from edgepress.runtime.rknn.backend import open_backend
from edgepress.runtime.rknn.exported import BuildConfig, load_exported_rknn
from edgepress.runtime.rknn.simulator import build_model
from edgepress.runtime.rknn.toolkit import Toolkit

SETTINGS = RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32)
RECIPE = Recipe(device="test", rknn=SETTINGS)
PLAIN = BuildConfig({"target_platform": "rk3588"})
TEXT = ("text_encoder",)


# ---------------------------------------------------------------- an export


@pytest.fixture(scope="module")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("rknn") / "out"
    export_rknn(tiny, output, RECIPE, components=TEXT)
    return output


@needs_toolkit
@pytest.mark.slow
def test_the_text_encoder_runs_on_the_npu_alone_and_is_close_to_its_float(exported: Path) -> None:
    content = json.loads((exported / "rknn" / "pipeline.json").read_text())
    (part,) = content["graphs"]["text_encoder"]
    assert part["operators"]["not_on_npu"] == part["errors"] == []
    assert part["operators"]["npu"] > 30
    assert part["simulated"]["relative_error"] <= 2e-3
    assert part["simulated"]["cosine"] > 0.99999
    assert part["status"] == "simulated"
    assert part["memory"]["weights"] > 0 < part["memory"]["internal"]
    assert part["build"]["peak_bytes"] > 1e8
    assert len(part["worst_layers"]) == 5
    assert content["verified_on_a_board"] is False
    rknn = exported / "rknn" / "text_encoder.rknn"
    assert rknn.stat().st_size == part["bytes"] > 1e5


@needs_toolkit
@pytest.mark.slow
def test_the_artifact_encodes_a_prompt_in_the_simulator_as_transformers_does(exported: Path, tiny: Path) -> None:
    import torch
    from helpers.onnx_graphs import load_component

    host, backend = open_backend(load_exported_rknn(exported))
    ids = np.arange(40, 69)
    outputs: dict[str, Any] = {}

    def run(name: str, inputs: dict[str, Any]) -> Any:
        outputs[name] = backend(name, inputs)
        return outputs[name]

    with pytest.raises(UserError, match=r"Graph 'caption' is not in pipeline\.json, which lists text_encoder"):
        host.encode_prompt(run_first_outputs(run), {"tokenizer": PromptTokens(ids)})
    with torch.no_grad():
        reference = load_component(tiny, "text_encoder")(
            input_ids=torch.from_numpy(ids)[None], output_hidden_states=True
        )
    expected = reference.hidden_states[-2].numpy()
    output = outputs["text_encoder"][:, : len(ids)]
    assert np.linalg.norm(output - expected) <= 3e-3 * np.linalg.norm(expected)


@needs_toolkit
@pytest.mark.slow
def test_the_board_kit_has_a_script_that_compiles_and_golden_inputs(exported: Path) -> None:
    script = exported / "rknn" / "check_board.py"
    compile(script.read_text("utf-8"), str(script), "exec")
    with np.load(exported / "rknn" / "golden" / "text_encoder.npz") as golden:
        assert golden.files == ["in.embeddings", "out"]


# ---------------------------------------------------------------- failures


def test_a_missing_toolkit_is_reported(
    occupied: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, str(tmp_path / "python"))
    arguments = ["export", "rknn", "--recipe", "rk3588", "--model", str(tiny), "--output", str(occupied)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.strip().startswith("Error: rknn-toolkit2 is not installed")
    assert result.stderr.strip().count("\n") == 0
    check_untouched(occupied)


def test_a_recipe_without_the_section_is_reported() -> None:
    result = CliRunner().invoke(main, ["export", "rknn", "--recipe", "orin"])
    assert result.exit_code == 2
    assert "has no section 'rknn'" in result.stderr


@needs_toolkit
@pytest.mark.parametrize(
    ("settings", "components", "message"),
    [
        ({"precision": "w4a16"}, (), "rk3588 does not support 4-bit weights. Choose fp16 or w8a8"),
        ({"precision": "w8a8"}, (), "has no w8a8 solution"),
        ({"cpu": ("encoder",)}, (), "rknn.cpu = .*unknown graph 'encoder'"),
        ({}, ("tokenizer",), "Unknown component 'tokenizer'"),
        ({"size": (64, 60)}, (), "Invalid image size 64x60"),
        ({"build_memory": 0.3}, (), "Raise rknn.build_memory"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_written(
    settings: dict[str, Any], components: Sequence[str], message: str, tiny: Path, occupied: Path
) -> None:
    changed = SETTINGS.model_copy(update=settings)
    with pytest.raises(UserError, match=message):
        prepare_job(check_inputs(tiny, occupied, changed, components), occupied, changed, components)
    check_untouched(occupied)


@needs_toolkit
@pytest.mark.slow
def test_a_build_that_takes_too_long_leaves_the_artifact_unchanged(tiny: Path, occupied: Path) -> None:
    with pytest.raises(UserError, match="took more than"):
        export_rknn(tiny, occupied, RECIPE, components=TEXT, timeout_s=0.01)
    check_untouched(occupied)


def _write_reciprocal_norm(file: Path, opset: int) -> None:
    """Writes x · (1 / sqrt |x W|), which the toolkit builds without an error, but divides on the CPU."""
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    steps = [("MatMul", ["x", "w"], "a"), ("Abs", ["a"], "b"), ("Sqrt", ["b"], "c"), ("Reciprocal", ["c"], "d")]
    nodes = [helper.make_node(operator, inputs, [out]) for operator, inputs, out in steps]
    nodes.append(helper.make_node("Mul", ["a", "d"], ["y"]))
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 32, 64))] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ports, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), file)


@pytest.mark.slow
@needs_toolkit
def test_a_build_that_returns_0_but_uses_the_cpu_is_rejected(toolkit: Toolkit, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    _write_reciprocal_norm(file, 19)
    x = 1 + np.random.default_rng(0).random((1, 32, 64), np.float32)
    request = BuildRequest(file, tmp_path, tmp_path / "m.rknn", [GoldenSample({"x": x}, np.sqrt(x))])
    measurement = build_and_simulate(toolkit, "m", request, PLAIN)
    assert (tmp_path / "m.rknn").exists()
    reason = get_rejection_reason("fp16", measurement)
    assert reason is not None
    assert reason.startswith("1 operators do not run on the NPU (Div")
    assert any("Unkown op target" in line for line in measurement.build_log.errors)


@pytest.mark.slow
@needs_toolkit
def test_a_newer_opset_a_full_disk_and_missing_samples_are_reported(toolkit: Toolkit, tmp_path: Path) -> None:
    newer, older = tmp_path / "newer.onnx", tmp_path / "older.onnx"
    _write_reciprocal_norm(newer, 23)
    _write_reciprocal_norm(older, 19)
    with pytest.raises(UserError, match="opset 23, need <= 19"):
        build_model(toolkit, "m", newer, PLAIN, tmp_path)
    with pytest.raises(UserError, match="No space left on device"):
        build_model(toolkit, "m", older, PLAIN, tmp_path, Path("/dev/full"))
    with pytest.raises(UserError, match=r"calibration samples are missing: .*inputs\.txt does not exist"):
        build_model(toolkit, "m", older, BuildConfig(PLAIN.toolkit_config, is_quantized=True), tmp_path / "none")
