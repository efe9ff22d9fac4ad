"""The public functions: recipes and models by name, results that print, errors that are sentences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.image_pairs import add_noise, random_image
from helpers.previous_artifact import extract_previous_artifact
from helpers.tiles import without_tile_graphs
from PIL import Image

import edgepress
from edgepress.api.recipes import load_checked
from edgepress.evaluate.results.results_file import load_results
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.recipes.loader import recipe_names
from edgepress.storage.files import digest_files
from edgepress.storage.layout import Artifact
from edgepress.storage.manifest import read_manifest
from edgepress.storage.pipeline_config import read_onnx_config


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds the tiny pipeline, which takes a second or two."""
    content = {
        "device": "bench",
        "quantize": {"method": "rtn", "scheme": {"bits": 4, "group_size": 32}},
        "calibration": {"count": 1, "steps": 1, "size": [32, 32]},
        "evaluation": {"count": 1, "steps": 1, "size": [32, 32]},
    }
    file = tmp_path_factory.mktemp("recipes") / "bench.yaml"
    file.write_text(yaml.safe_dump(content), "utf-8")
    return file


@pytest.fixture(scope="module")
def artifact(recipe: Path, lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "artifact"
    edgepress.quantize(recipe, model=lean, output=folder)
    return folder


def test_quantize_returns_what_prints_well(recipe: Path, lean: Path, artifact: Path) -> None:
    again = edgepress.quantize(edgepress.load_recipe(recipe), model=str(lean), output=str(artifact))
    assert not again.created
    assert str(artifact / "model") in str(again)
    assert "already up to date" in str(again)


def test_progress_is_reported(recipe: Path, lean: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    edgepress.quantize(recipe, model=lean, output=tmp_path / "out", progress=lambda *state: calls.append(state))
    assert calls
    assert all(0 <= done <= total for _, done, total in calls)


@pytest.mark.slow
def test_an_export_of_the_artifact_is_the_default(recipe: Path, tmp_path: Path) -> None:
    """Of the artifact of an earlier release, without the graphs that decode in tiles."""
    artifact = extract_previous_artifact(tmp_path)
    shutil.rmtree(artifact / "onnx")
    with without_tile_graphs():
        result = edgepress.export_onnx(recipe, output=artifact, precision="int4", verify=False)
    assert result.folder == Artifact(artifact).onnx
    assert str(result.folder) in str(result)
    manifest = read_manifest(artifact)
    assert manifest is not None
    assert read_onnx_config(result.folder).model_sha256 == digest_files(manifest.files)


def test_evaluate_writes_results_and_reports(recipe: Path, lean: Path, artifact: Path, tmp_path: Path) -> None:
    results = edgepress.evaluate(
        recipe, model=lean, candidates=[artifact / "model"], output=tmp_path / "out", metrics=("psnr",)
    )
    assert results.variants
    assert {"results.json", "report.html", "report.md", "junit.xml"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.fixture
def image_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two folders of images for three prompts; one image is missing."""
    monkeypatch.chdir(tmp_path)
    save_prompts([Prompt(id=name, prompt="x", language="en") for name in "abc"], tmp_path / "set.jsonl")
    for folder, names in (("reference", "abc"), ("variant", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            image = add_noise(random_image(32, 32), len(names))
            Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
    return tmp_path


@pytest.mark.slow
def test_evaluate_logs_what_could_not_be_compared(image_folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Folders are given by name, the recipe as an object."""
    recipe = edgepress.Recipe.model_validate({"device": "bench", "evaluation": {"gates": {"psnr_min": 30}}})
    candidates = {"copy": image_folders / "variant"}
    results = edgepress.evaluate(
        recipe, model="reference", candidates=candidates, prompts=Path("set.jsonl"), metrics=["psnr"], output="out"
    )
    assert load_results(Path("out/results.json")) == results
    assert (results.variants["copy"].num_pairs, results.verdict) == (2, "not measured")
    assert "1 pair of copy could not be compared. The first one: c, seed 0: missing." in caplog.messages


@pytest.mark.usefixtures("image_folders")
def test_evaluate_accepts_a_single_candidate_and_ground_truth() -> None:
    results = edgepress.evaluate(
        model="reference",
        candidates="variant",
        prompts="set.jsonl",
        metrics=["mae"],
        limit=1,
        ground_truth="reference",
        output="out",
    )
    assert (list(results.variants), len(results.samples), results.gates) == (["variant"], 1, ())
    assert results.samples[0].reference
    assert results.samples[0].reference.values == {"truth_mae": 0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edgepress.quantize("toaster"), "There is no recipe 'toaster'"),
        (lambda: edgepress.quantize("pi5", method="magic"), "Unknown method 'magic'. Choose from: rtn, awq"),
        (lambda: edgepress.quantize("pi5", model="./nowhere"), "nowhere"),
        (lambda: edgepress.export_onnx(model="demo"), "Give --recipe or --output: the artifact to export."),
        (lambda: edgepress.export_rknn("pi5"), "rknn"),
        (
            lambda: edgepress.export_rknn("rk3588", precision="int3"),
            r"^rknn\.precision = 'int3': it must be 'fp16', 'w8a8', 'w4a16' or 'auto'\.$",
        ),
        (
            lambda: edgepress.plan_rknn("rk3588", precision="int3"),
            r"^rknn\.precision = 'int3': it must be 'fp16', 'w8a8', 'w4a16' or 'auto'\.$",
        ),
        (
            lambda: edgepress.export_onnx("pi5", precision="int3"),  # type: ignore[arg-type]
            r"^precision = 'int3': it must be 'fp32', 'fp16', 'int4' or 'w8a8'\.$",
        ),
        (lambda: edgepress.evaluate(model="demo"), "Nothing to compare"),
        (lambda: edgepress.evaluate(model="demo", pairs=("a", "b")), "Leave out --model"),
        (lambda: edgepress.ImagePipeline("nowhere"), "nowhere does not exist"),
    ],
)
def test_wrong_input_is_a_user_error(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(edgepress.UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"pnsr_min": 30}, r"evaluation\.gates: Unknown gate 'pnsr_min': did you mean 'psnr_min'\?"),
        ({"psnr_max": 30}, r"Unknown gate 'psnr_max': did you mean 'psnr_min'\?"),
        ({"psnr_min": "3%"}, r"The gate 'psnr_min' does not accept the percentage '3%'"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda recipe, output: edgepress.quantize(recipe, output=output),
        lambda recipe, output: edgepress.export_onnx(recipe, output=output),
        lambda recipe, output: edgepress.export_rknn(recipe, output=output),
        lambda recipe, output: edgepress.evaluate(recipe, output=output),
    ],
)
def test_a_gate_is_checked_before_any_work(call: Any, gates: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Whichever command reads the recipe."""
    file = tmp_path / "gated.yaml"
    file.write_text(yaml.safe_dump({"device": "bench", "evaluation": {"gates": gates}}), "utf-8")
    with pytest.raises(edgepress.UserError, match=rf"^Recipe .*gated\.yaml.*{message}"):
        call(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_the_gates_of_shipped_recipes_exist(name: str) -> None:
    load_checked(name)
