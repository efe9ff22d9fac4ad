"""`edgepress generate`: its options, and one sentence for what a user can mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers.torch_graphs import torch_run, write_unrunnable
from PIL import Image

from edgepress.cli.main import main
from edgepress.pipelines.sampling import load_pipeline
from edgepress.runtime import pipeline


@pytest.fixture
def artifact(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = torch_run(load_pipeline(tiny, torch.float32))
    monkeypatch.setattr(pipeline, "Sessions", lambda *_: run)
    write_unrunnable(tiny, tmp_path / "artifact")
    return tmp_path / "artifact"


def generate(artifact: Path, output: Path, *more: str, **extra: Any) -> Result:
    arguments = ["generate", str(artifact), "--prompt", "a cat", "--steps", "1", "-o", str(output), *more]
    return CliRunner().invoke(main, arguments, **extra)


def sentence(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_it_writes_the_picture_that_the_name_asks_for(artifact: Path, tmp_path: Path, name: str) -> None:
    result = generate(artifact, tmp_path / name, "--size", "32x48")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / name) as image:
        assert image.size == (48, 32)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["artifact", name])


def test_a_size_that_cannot_be_is_a_sentence(artifact: Path, tmp_path: Path) -> None:
    assert "60x64 cannot be painted" in sentence(generate(artifact, tmp_path / "a.png", "--size", "60x64"))
    assert not (tmp_path / "a.png").exists()


def test_a_picture_beyond_all_memory_is_a_sentence(artifact: Path, tmp_path: Path) -> None:
    """The size is not given as an option, which has fewer digits."""
    asked = {"generate": {"size": (2**46, 64)}}  # noise of 4 PiB, beyond the address space
    assert "too little memory" in sentence(generate(artifact, tmp_path / "a.png", default_map=asked))


def test_an_artifact_without_graphs_is_a_sentence(tmp_path: Path) -> None:
    assert "holds no onnx/pipeline.json" in sentence(generate(tmp_path, tmp_path / "a.png"))


@pytest.mark.parametrize("output", ["nowhere/a.png", "artifact"])
def test_what_cannot_be_written_is_said_before_painting(artifact: Path, tmp_path: Path, output: str) -> None:
    name = tmp_path / output
    name = name if name.suffix else name.with_name("b.png")
    if output == "artifact":
        name.mkdir()
    assert "cannot be written" in sentence(generate(artifact, name))


@pytest.mark.parametrize(
    "name",
    ["a", "a.txt", "a.onnx"]
    + [f"a.{kind}" for kind in ("xbm", "msp", "palm", "hdf", "h5", "grib", "bufr", "wmf", "emf", "blp")],
)
def test_a_name_that_is_no_pictures_is_a_sentence(artifact: Path, tmp_path: Path, name: str) -> None:
    assert "names no picture format" in sentence(generate(artifact, tmp_path / name))


def test_a_prompt_too_long_is_said_and_painted(artifact: Path, tmp_path: Path) -> None:
    result = generate(artifact, tmp_path / "a.png", "--prompt", "c" * 600)
    assert result.exit_code == 0
    assert "of which 512 are read" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        ("--seed", "-1"),
        ("--seed", "1.5"),
        ("--seed", str(2**63)),
        ("--steps", "0"),
        ("--size", "64"),
        ("--size", "axb"),
    ],
)
def test_wrong_usage_is_exit_code_2(artifact: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    result = generate(artifact, tmp_path / "a.png", *more)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_help_comes_without_torch() -> None:
    script = (
        "import sys; from edgepress.cli.main import main; main(['generate', '--help'], standalone_mode=False);"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
