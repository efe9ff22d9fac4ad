"""`edgepress plan`, and commands that refuse what the plan refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import edgepress
from edgepress.api.planning import require_fit_unless_forced
from edgepress.cli.main import main
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.hardware import Hardware
from edgepress.recipes.schema import Recipe


@pytest.mark.slow
def test_a_plan_is_printed_as_a_report_and_as_json() -> None:
    arguments = ["plan", "--recipe", "pi5", "--size", "64x64"]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 0, printed.output
    assert "on pi5 with 8 GiB" in printed.stdout
    assert "Verdict: fits" in printed.stdout
    content = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert (content["verdict"], content["estimated"], content["size"]) == ("fits", True, [64, 64])
    assert content["floor_seconds"] > 0


@pytest.mark.slow
def test_what_does_not_fit_ends_with_exit_code_2() -> None:
    result = CliRunner().invoke(main, ["plan", "--recipe", "pi5", "--size", "64x64", "--memory", "0.61"])
    assert result.exit_code == 2
    assert "Verdict: does not fit" in result.stdout
    assert result.stderr.startswith("Error: The pipeline does not fit on pi5")


def test_a_memory_that_is_no_number() -> None:
    result = CliRunner().invoke(main, ["plan", "--recipe", "pi5", "--memory", "nan"])
    assert result.exit_code == 2
    assert "--memory: 'nan' is not a number above 0 and up to 1048576. Give one" in result.stderr


@pytest.mark.slow
def test_more_layers_than_any_model_has(tmp_path: Path) -> None:
    shutil.copytree(DEMO_PIPELINE, tmp_path / "model")
    config = tmp_path / "model" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_layers": 200_000}))
    result = CliRunner().invoke(main, ["plan", "--recipe", "pi5", "--model", str(tmp_path / "model")])
    assert result.exit_code == 2
    assert "says n_layers: 200000" in result.stderr


@pytest.mark.parametrize("precision", ["fp16"])
def test_floats_that_a_device_sums_wrongly_are_not_exported(precision: str, tmp_path: Path) -> None:
    with pytest.raises(edgepress.UserError, match=r"pi5 does not compute fp16 correctly\..* int4, w8a8\. Give --ig"):
        edgepress.export_onnx("pi5", model="demo", output=tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_fits_on_no_version_of_a_device_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text("device: small\nhardware: {memory: [0.2, 0.3], reserved: 0.25}\n")
    with pytest.raises(
        edgepress.UserError, match=r"does not fit on small.* Give --ignore-plan to go on nevertheless\."
    ):
        edgepress.quantize(recipe, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_force_ignores_the_plan_in_this_release_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe(device="small", hardware=Hardware(memory=(0.2, 0.3), reserved=0.25))
    require_fit_unless_forced(recipe, DEMO_PIPELINE, force=True)
    assert "does not fit on small" in caplog.text
    assert "'edgepress quantize --force' ignores that; later --ignore-plan does." in caplog.text
