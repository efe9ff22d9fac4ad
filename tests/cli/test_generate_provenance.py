"""`edgepress generate`: a file records every option that its pixels depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.published_artifact import publish_model, publish_onnx
from helpers.small_artifact import write_small_artifact
from PIL import Image

from edgepress.cli.generate import generate
from edgepress.cli.main import main
from edgepress.runtime.image_metadata import read_origin
from edgepress.storage.layout import Artifact

STEPS = ("--steps", "5")
GUIDED = (*STEPS, "--guidance", "3")
STARTED = (*STEPS, "--image", "red.png")
# For each parameter: arguments, the same with another value of it, and the keys whose values must differ then.
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], set[str]]] = {
    "prompt": (STEPS, (*STEPS, "--prompt", "b"), {"prompt_sha256"}),
    "preset": (STEPS, ("--preset", "fast"), {"steps", "guidance"}),
    "seed": (STEPS, (*STEPS, "--seed", "1"), {"seed"}),
    "steps": (STEPS, ("--steps", "6"), {"steps"}),
    "guidance": (STEPS, GUIDED, {"guidance"}),
    "negative_prompt": (GUIDED, (*GUIDED, "--negative-prompt", "rain"), {"negative_prompt_sha256"}),
    "image_file": (STEPS, STARTED, {"image_sha256", "strength"}),
    "strength": (STARTED, (*STARTED, "--strength", "0.9"), {"strength"}),
    "step_cache": (STEPS, (*STEPS, "--step-cache", "0.5"), {"step_cache"}),
    "provenance": (STEPS, (*STEPS, "--provenance", "prompt"), {"prompt_sha256", "prompt"}),
    "quality": (("-o", "a.jpg"), ("-o", "a.jpg", "--quality", "50"), {"quality"}),
}
ELSEWHERE = {
    "artifact": "artifact_sha256, which the test of batches compares",
    "size": "the pixels' own size",
    "tile": "tile_size, in the test of image metadata",
    "engine": "engine, in the test below",
    "providers": "engine, in the test below",
    "prompts": "each file records its own prompt",
    "output": "the format is the file's own",
    "batch_format": "the format is the file's own",
}
NO_PIXELS = {"low_memory", "threads", "verify", "restart", "as_json"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    (folder / "onnx").mkdir()
    write_small_artifact(folder, has_encoder=True)
    publish_model(Artifact(folder), b"1")
    publish_onnx(Artifact(folder), presets={"fast": {"steps": 4, "guidance": 2.0}})
    return folder


def read_record(artifact: Path, *arguments: str) -> dict[str, Any]:
    output = () if "-o" in arguments else ("-o", "a.png")
    prompt = () if "--prompt" in arguments else ("--prompt", "a")
    result = CliRunner().invoke(main, ["generate", str(artifact), "--size", "32x32", *output, *prompt, *arguments])
    assert result.exit_code == 0, result.output
    with Image.open("a.jpg" if "a.jpg" in arguments else "a.png") as image:
        return read_origin(image)


def test_every_parameter_is_recorded_or_changes_no_pixel() -> None:
    assert {parameter.name for parameter in generate.params} == {*CASES, *ELSEWHERE, *NO_PIXELS} | {"quiet", "verbose"}


@pytest.mark.parametrize("name", CASES)
def test_a_file_records_the_value_of_an_option(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "red").save("red.png")
    arguments, changed, keys = CASES[name]
    first, second = read_record(artifact, *arguments), read_record(artifact, *changed)
    assert {key for key in {*first, *second} if first.get(key) != second.get(key)} == keys


def test_a_file_names_what_ran_the_graphs(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import onnxruntime

    engine = read_record(artifact, "--provider", "CPUExecutionProvider")["engine"]
    assert engine == f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider"
