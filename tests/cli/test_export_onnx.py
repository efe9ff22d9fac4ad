"""`edgepress export onnx`: its options, and bad input in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgepress.cli.main import main
from edgepress.export.onnx import exporter as module
from edgepress.export.onnx.exporter import ExportResult
from edgepress.export.verification.parity import OutputError, Parity
from edgepress.recipes.schema import ExportSettings


@pytest.fixture
def export_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the export, which is not run."""
    calls: list[Any] = []

    def export_onnx(source: Path, output: Path, settings: ExportSettings, **options: Any) -> ExportResult:
        calls.append((source, output, settings, options))
        return ExportResult(output / "onnx", {"exact": Parity({"transformer": OutputError(1e-6, 2e-6)}, 61.23)})

    monkeypatch.setattr(module, "export_onnx", export_onnx)
    return calls


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "onnx", *arguments])


def test_a_recipe_says_how_and_its_artifact_what(export_calls: list[Any]) -> None:
    result = run("--recipe", "pi5")
    assert result.exit_code == 0, result.output
    source, target, settings, options = export_calls[0]
    assert source == target == Path("artifacts/pi5")
    assert settings == ExportSettings(precision="int4", format="ort", accuracy_level=4)
    assert (options["sizes"], options["verify"], options["precision"]) == ((), True, None)


def test_options_override_the_recipe(export_calls: list[Any], tiny: Path, tmp_path: Path) -> None:
    arguments = ["--precision", "fp32", "--opset", "21", "--size", "64x128", "--size", "64x64", "--no-check"]
    result = run("--recipe", "pi5", "--model", str(tiny), "--output", str(tmp_path), *arguments)
    assert result.exit_code == 0, result.output
    source, target, settings, options = export_calls[0]
    assert (source, target) == (tiny, tmp_path)
    assert (options["precision"], options["opset"], settings.accuracy_level) == ("fp32", 21, 4)
    assert (options["sizes"], options["verify"]) == (((64, 128), (64, 64)), False)


def test_errors_and_the_image_are_shown(export_calls: list[Any], tmp_path: Path) -> None:
    result = run("--recipe", "pi5", "--output", str(tmp_path))
    assert len(export_calls) == 1
    assert "2e-06" in result.stdout
    assert "61.2 dB" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Give --recipe or --output: the artifact to export."),
        (("--output", "missing"), "There is no artifact missing"),
        (("--recipe", "pi5", "--size", "big"), "is not a size"),
        (("--recipe", "nothing"), "There is no recipe"),
        (("--recipe", "pi5", "--output", "missing"), "There is no artifact missing"),
        (("--model", "missing", "--output", "out"), "There is no model folder"),
        (("--recipe", "pi5", "--model", "demo", "--precision", "fp32", "--opset", "3"), "Opset 3"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("--model", str(tiny), "--output", str(tmp_path / "file" / "out"), "--precision", "fp32")
    assert result.exit_code == 2
    assert "is not a folder" in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
