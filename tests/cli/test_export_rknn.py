"""`edgepress export rknn`: its options, and how a result is shown. The export itself needs the vendor's toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgepress.api import functions
from edgepress.cli.main import main
from edgepress.export.rknn.building.build_log import BuildLog, BuiltLayer
from edgepress.export.rknn.building.builder import BuiltPart
from edgepress.export.rknn.building.simulation import BuildMeasurement
from edgepress.export.rknn.exporter import RknnExportResult
from edgepress.export.rknn.planning.memory_plan import Deployment, MemoryPlan, PartEstimate
from edgepress.runtime.rknn.exported import BuildConfig

LAYERS = (BuiltLayer("Conv", "FLOAT16", "NPU", "a"), BuiltLayer("MatMul", "FLOAT16", "NPU", "b"))
PART = BuiltPart(
    "fp16",
    BuildConfig({}),
    BuildMeasurement(BuildLog(LAYERS, 3 * 2**20, 2**20, ()), 1.5e-3, 0.99987, (), 61.2, 2**30),
)
GIB = 2**30


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The calls of the export, which is not run."""
    calls: list[dict[str, Any]] = []

    def export_rknn(recipe: str, **options: Any) -> RknnExportResult:
        calls.append({"recipe": recipe, **options})
        return RknnExportResult(tmp_path / "rknn", {"encoder": PART}, {"float": None, "simulated": 41.27})

    monkeypatch.setattr(functions, "export_rknn", export_rknn)
    return calls


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "rknn", "--recipe", "rk3588", *arguments], env={"COLUMNS": "150"})


def test_options_are_passed_on(calls: list[dict[str, Any]]) -> None:
    arguments = ["--component", "vae", "--component", "transformer", "--precision", "w8a8", "--timeout", "60"]
    assert run(*arguments).exit_code == 0
    (call,) = calls
    assert (call["recipe"], call["model"], call["output"]) == ("rk3588", None, None)
    assert (call["components"], call["precision"], call["timeout_s"]) == (("vae", "transformer"), "w8a8", 60)


@pytest.mark.usefixtures("calls")
def test_parts_are_shown_as_a_table_with_what_is_not_verified() -> None:
    shown = run().stdout
    (row,) = (line for line in shown.splitlines() if "encoder" in line)
    cells = [cell.strip() for cell in row.strip("│┃ ").split("│")]
    assert cells == ["encoder", "fp16", "2", "0.0015", "0.99987", "4.0 MiB", "61 s"]
    assert "The float image: equal to torch's." in shown
    assert "The simulated image: 41.3 dB PSNR." in shown
    assert "No board has verified them." in shown


@pytest.mark.usefixtures("calls")
def test_json_has_the_same_numbers(tmp_path: Path) -> None:
    content = json.loads(run("--json").stdout)
    assert content["folder"] == str(tmp_path / "rknn")
    assert content["image_psnr"] == {"float": None, "simulated": 41.27}
    assert content["parts"]["encoder"] == {
        "precision": "fp16",
        "npu_layers": 2,
        "relative_error": 1.5e-3,
        "cosine": 0.99987,
        "memory_bytes": 4 * 2**20,
        "build_seconds": 61.2,
    }


def make_plan(*deployments: Deployment) -> MemoryPlan:
    return MemoryPlan("rk3588", "fp16", 4 * GIB, (512, 512), 96, deployments)


@pytest.mark.parametrize(("rejection", "exit_code"), [("", 0), ("needs 9 GiB", 2)])
def test_a_plan_that_no_deployment_fits_is_shown_and_fails(
    rejection: str, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PartEstimate("encoder", "encoder", True, 10, GIB, 0, 0, 0.0)
    plan = make_plan(Deployment("CPU, int4", (part,), weight_bytes=GIB, rejection=rejection))
    monkeypatch.setattr(functions, "plan_rknn", lambda *_, **__: plan)
    result = run("--plan")
    assert (result.exit_code, result.stdout) == (exit_code, f"{plan}\n")
    content = json.loads(run("--plan", "--json").stdout)
    assert content["deployments"][0]["parts"][0]["weight_bytes"] == GIB


def test_a_plan_is_about_the_whole_pipeline() -> None:
    result = run("--plan", "--component", "vae")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: --component has no effect: --plan is about the whole pipeline" in result.stderr
