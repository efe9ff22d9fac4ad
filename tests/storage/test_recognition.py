"""Every path is recognized, and a wrong one is refused with what it is and what was meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.layout import is_pipeline
from edgepress.storage.preflight import check_output
from edgepress.storage.recognition import PathKind, describe_path, recognize_path, reject_path, require_export

CONFIG = json.dumps({"schema_version": 1, "family": "f", "graphs": {}, "host": {}})
MANIFEST = json.dumps({"schema_version": 3, "prompts_sha256": "0", "files": []})
FILES = {
    "pipeline/model_index.json": "{}",
    "pipeline/vae/config.json": "{}",
    "orin/manifest.json": MANIFEST,
    "orin/model/model_index.json": "{}",
    "orin/onnx/pipeline.json": CONFIG,
    "orin/onnx/caption.onnx": "",
    "orin/evaluation/results.json": "{}",
    "orin/bench/bench.json": "{}",
    "new/manifest.json": MANIFEST,
    "new/model/model_index.json": "{}",
    "site/manifest.json": '{"name": "App", "icons": []}',
    "site/model/model_index.json": "{}",
    "board/rknn/pipeline.json": CONFIG,
    "board/rknn/part.rknn": "",
    "images/a.PNG": "",
    "weights/model.safetensors": "",
    "ci/pipeline.json": '{"stages": []}',
    "recipe.yaml": "device: x",
    "notes": "",
}
DESCRIPTIONS = {
    "nowhere": (PathKind.MISSING, "does not exist"),
    "link": (PathKind.BROKEN_LINK, "is a link to nothing"),
    "empty": (PathKind.EMPTY, "is an empty folder"),
    "pipeline": (PathKind.PIPELINE, "is a diffusers pipeline"),
    "pipeline/vae": (PathKind.COMPONENT, "is a component of the pipeline {root}/pipeline"),
    "pipeline/model_index.json": (PathKind.FILE, "is the index of a pipeline"),
    "orin": (PathKind.ARTIFACT, "is an artifact with model/ and onnx/"),
    "orin/model": (PathKind.MODEL, "is the quantized pipeline of the artifact {root}/orin"),
    "orin/onnx": (PathKind.EXPORT, "is an export"),
    "orin/onnx/caption.onnx": (PathKind.FILE, "is a single ONNX graph"),
    "orin/evaluation": (PathKind.RESULTS, "holds results of an evaluation"),
    "orin/evaluation/results.json": (PathKind.FILE, "holds results of an evaluation"),
    "orin/bench": (PathKind.BENCH, "holds results of a benchmark"),
    "site/model": (PathKind.PIPELINE, "is a diffusers pipeline"),
    "board": (PathKind.ARTIFACT, "is an artifact with rknn/"),
    "board/rknn": (PathKind.EXPORT, "is an export for an NPU"),
    "board/rknn/part.rknn": (PathKind.FILE, "is a single RKNN part"),
    "images": (PathKind.IMAGES, "is a folder of images"),
    "images/a.PNG": (PathKind.FILE, "is an image"),
    "weights": (PathKind.FOLDER, "is a folder with model.safetensors"),
    "weights/model.safetensors": (PathKind.FILE, "is a single file of weights"),
    "ci": (PathKind.FOLDER, "is a folder whose pipeline.json is another program's"),
    "recipe.yaml": (PathKind.FILE, "is a YAML file, such as a recipe"),
    "notes": (PathKind.FILE, "is a file"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("nothing")
    return folder


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_path_is_recognized(root: Path, name: str) -> None:
    kind, text = DESCRIPTIONS[name]
    assert recognize_path(root / name) is kind
    assert describe_path(root / name) == text.format(root=root)


def test_a_folder_is_recognized_from_inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "orin" / "model")
    assert describe_path(Path()) == f"is the quantized pipeline of the artifact {root}/orin"


def test_a_name_that_is_too_long_is_missing() -> None:
    assert recognize_path(Path("a" * 5000)) is PathKind.MISSING


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("orin", "orin/model"),
        ("orin/onnx", None),
        ("pipeline/vae", "pipeline"),
        ("pipeline/vae/config.json", "pipeline"),
        ("nowhere", None),
    ],
)
def test_what_may_have_been_meant_is_named(root: Path, name: str, meant: str | None) -> None:
    message = str(reject_path(root / name, "Give a pipeline", is_pipeline))
    assert message.endswith(f"Give a pipeline, such as {root / meant}." if meant else "Give a pipeline.")


@pytest.mark.parametrize("name", ["orin", "orin/onnx", "board", "board/rknn"])
def test_exports_and_artifacts_with_one_pass(root: Path, name: str) -> None:
    require_export(root / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new", r"new is an artifact with model/: nothing was exported from it\. Run 'edgepress export onnx' first"),
        ("new/model", r"is the quantized pipeline of the artifact .*/new\. Give an artifact that 'edgepress export"),
        ("orin/model", r"is the quantized pipeline of the artifact .*orin\. Give .*, such as .*/orin\.$"),
        ("orin/onnx/caption.onnx", r"caption\.onnx is a single ONNX graph\. Give .*, such as .*/orin/onnx\.$"),
        ("pipeline", r"pipeline is a diffusers pipeline\. Give an artifact that 'edgepress export onnx'"),
        ("ci", r"ci is a folder whose pipeline\.json is another program's\. Give an artifact"),
        ("nowhere", r"Artifact folder .*nowhere does not exist\. Create it"),
    ],
)
def test_what_has_no_export_is_named(root: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_export(root / name)


@pytest.mark.parametrize("name", ["orin/model", "orin/onnx"])
def test_the_inside_of_an_artifact_is_no_output(root: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"Choose another output folder, such as .*/orin\."):
        check_output(root / name)


def test_every_command_says_what_a_path_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs that are light enough to call here; others are tested beside them."""
    from edgepress.api.cleaning import clean
    from edgepress.api.inspection import info
    from edgepress.api.verification import verify
    from edgepress.evaluate.results.results_file import load_results
    from edgepress.prompts.sets import load_prompt_set
    from edgepress.recipes.loader import load_recipe

    monkeypatch.chdir(root)
    calls: list[tuple[Callable[..., object], str, str]] = [
        (info, "orin/evaluation", "holds results of an evaluation. Give the top folder of a diffusers pipeline"),
        (info, "recipe.yaml", "is a YAML file, such as a recipe. Give the top folder"),
        (verify, "pipeline", "is a diffusers pipeline. Give an artifact"),
        (verify, "orin/onnx/caption.onnx", "is a single ONNX graph. Give an artifact"),
        (
            verify,
            "orin/evaluation",
            "holds results of an evaluation. Give an artifact that edgepress made, or one of its",
        ),
        (clean, "orin/model", "is the quantized pipeline of the artifact orin. Give an artifact, such as orin."),
        (clean, "recipe.yaml", "is a YAML file, such as a recipe. Give an artifact"),
        (load_recipe, "orin/model", "is the quantized pipeline of the artifact orin. Give a file that ends in .yaml"),
        (load_recipe, "notes", "is a file. Give a file that ends in .yaml"),
        (load_prompt_set, "pipeline", "is a diffusers pipeline. Give a file that ends in .jsonl"),
        (load_prompt_set, "orin", "is an artifact with model/ and onnx/. Give a file that ends in .jsonl"),
        (load_results, "orin", "Give the results.json of an evaluation, such as orin/evaluation/results.json."),
        (load_results, "orin/evaluation", "of an evaluation, such as orin/evaluation/results.json."),
        (load_results, "orin/manifest.json", "is a manifest. Give the results.json of an evaluation"),
    ]
    for function, path, message in calls:
        with pytest.raises(UserError) as raised:
            function(path)
        assert str(raised.value).startswith(f"{path} ")
        assert message in str(raised.value)
