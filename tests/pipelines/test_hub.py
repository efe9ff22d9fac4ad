"""Finding pipelines, without a network and without the demo's weights."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub.errors
import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines import hub


def write_pipeline(folder: Path, class_name: str = "SomePipeline") -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    return folder


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_demo_is_the_embedded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEMO_PIPELINE", write_pipeline(tmp_path / "embedded"))
    monkeypatch.chdir(tmp_path)
    write_pipeline(tmp_path / "demo")  # a local folder of the same name is not used
    assert hub.resolve_pipeline("demo") == tmp_path / "embedded"


def test_the_demo_is_in_the_package() -> None:
    assert hub.DEMO_PIPELINE.parent.parent == Path(hub.__file__).parents[1]


def test_a_missing_demo_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEMO_PIPELINE", tmp_path / "not-there")
    with pytest.raises(UserError, match=r"There is no model folder .*not-there"):
        hub.resolve_pipeline("demo")


def test_a_folder_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pipeline(tmp_path / "models" / "mine")
    assert hub.resolve_pipeline(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert hub.resolve_pipeline("models/mine").resolve() == folder  # though it looks like a hub id
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.resolve_pipeline("~/models/mine") == folder


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "missing", "a/b/c", "~/nowhere/at/all"])
def test_a_missing_folder_is_reported(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There is no model folder") as raised:
        hub.resolve_pipeline(model)
    assert Path(model).name in str(raised.value)


def test_an_empty_file_of_weights_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors is corrupt or truncated"):
        hub.resolve_pipeline(str(tmp_path / "model.safetensors"))


def test_a_folder_without_model_index_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r" is an empty folder\. Give the top folder of a diffusers pipeline"):
        hub.resolve_pipeline(str(tmp_path))


def test_a_folder_above_or_in_a_pipeline_names_it(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "models" / "mine")
    (pipeline / "vae").mkdir()
    (pipeline / "vae" / "config.json").touch()
    for folder, reason in (
        (pipeline.parent, "is a folder with mine"),
        (pipeline / "vae", f"is a component of the pipeline {pipeline}"),
    ):
        with pytest.raises(UserError, match=rf"{reason}\. Give .*, such as {pipeline}\."):
            hub.resolve_pipeline(str(folder))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("model", ["nobody/nothing", "my models/thing", "nobody/--", "nobody/"])
def test_a_failed_download_is_reported_on_one_line(model: str) -> None:
    with pytest.raises(UserError) as raised:
        hub.resolve_pipeline(model)
    assert model.rstrip("/") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_model_in_one_file_at_the_top_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    (tmp_path / "model_index.json").write_text("{}")
    loaded = ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"]
    unused = ["whole.safetensors", "vae/diffusion_pytorch_model.bin", "teaser.png"]
    downloaded = []

    def download(_: str, allow_patterns: list[str]) -> str:
        downloaded.extend(filter_repo_objects(loaded + unused, allow_patterns=allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve_pipeline("owner/model") == tmp_path
    assert downloaded == loaded


def test_a_connection_that_breaks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub passes on the errors of its HTTP library once it has tried five times."""
    error = vars(huggingface_hub.errors)["HTTPError"]("peer closed connection")
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=error))
    with pytest.raises(UserError, match=r"downloading it from the Hugging Face Hub failed \(peer closed connection\)"):
        hub.resolve_pipeline("them/model")


def test_the_home_of_an_unknown_user_is_reported() -> None:
    with pytest.raises(UserError, match="There is no model folder ~no-such-user/model"):
        hub.resolve_pipeline("~no-such-user/model")


def test_the_pipeline_class_is_read(tmp_path: Path) -> None:
    assert hub.read_pipeline_class(write_pipeline(tmp_path / "p", "ThatPipeline")) == "ThatPipeline"


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "\xff"])
def test_a_folder_without_a_class_is_rejected(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_text(content, "latin-1")
    with pytest.raises(
        UserError, match=r"model_index\.json (does not name a pipeline class|cannot be read|does not hold)"
    ):
        hub.read_pipeline_class(tmp_path)
