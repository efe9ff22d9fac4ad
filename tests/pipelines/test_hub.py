"""Where a pipeline comes from, without a network and without the demo's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines import hub
from edgepress.prompts import sets


def pipeline(folder: Path, class_name: str = "SomePipeline") -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    return folder


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_demo_is_the_embedded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEMO", pipeline(tmp_path / "embedded"))
    monkeypatch.chdir(tmp_path)
    pipeline(tmp_path / "demo")  # a folder that bears the same name is not taken for it
    assert hub.resolve_pipeline("demo") == tmp_path / "embedded"


def test_the_demo_stands_in_the_package() -> None:
    assert hub.DEMO_PIPELINE.parent.parent == Path(hub.__file__).parent


def test_demo_without_its_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEMO", tmp_path / "not-there")
    with pytest.raises(UserError, match=r"There is no model folder .*not-there"):
        hub.resolve_pipeline("demo")


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pipeline(tmp_path / "models" / "mine")
    assert hub.resolve_pipeline(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert hub.resolve_pipeline("models/mine").resolve() == folder  # though it looks like a hub id
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.resolve_pipeline("~/models/mine") == folder


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "missing", "a/b/c", "~/nowhere/at/all"])
def test_a_missing_folder_is_named(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There is no model folder") as raised:
        hub.resolve_pipeline(model)
    assert Path(model).name in str(raised.value)


def test_a_file_is_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"There is no model folder .*model\.safetensors"):
        hub.resolve_pipeline(str(tmp_path / "model.safetensors"))


def test_a_folder_without_model_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        hub.resolve_pipeline(str(tmp_path))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("model", ["nobody/nothing", "my models/thing", "nobody/--", "nobody/"])
def test_a_hub_id_that_cannot_be_had_is_one_sentence(model: str) -> None:
    with pytest.raises(UserError) as raised:
        hub.resolve_pipeline(model)
    assert model.rstrip("/") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_home_that_nobody_has_is_refused() -> None:
    with pytest.raises(UserError, match="There is no model folder ~no-such-user/model"):
        hub.resolve_pipeline("~no-such-user/model")


def test_the_pipeline_class_is_read(tmp_path: Path) -> None:
    assert hub.read_pipeline_class(pipeline(tmp_path / "p", "ThatPipeline")) == "ThatPipeline"


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "\xff"])
def test_a_folder_that_names_no_class_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"model_index\.json names no pipeline class"):
        hub.read_pipeline_class(tmp_path)


def test_prompts_are_those_asked_for_else_the_pipelines_own_else_the_shipped_ones(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    assert sets.resolve_prompt_set(folder, "mine.jsonl", "evaluation") == Path("mine.jsonl")
    shipped = sets.resolve_prompt_set(folder, "auto", "evaluation")
    assert shipped.parts[-3:] == ("recipes", "prompts", "evaluation.jsonl")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "evaluation.jsonl").touch()
    assert sets.resolve_prompt_set(folder, "auto", "evaluation") == folder / "prompts" / "evaluation.jsonl"
    assert sets.resolve_prompt_set(folder, "auto", "calibration").parts[-3:] == (
        "recipes",
        "prompts",
        "calibration.jsonl",
    )
