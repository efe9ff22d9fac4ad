"""Exports and the model beside them: an export of a model that was replaced is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.published_artifact import publish_model, publish_onnx, write_published_artifact

from edgepress.common.errors import UserError
from edgepress.runtime.onnx.exported import load_exported_onnx
from edgepress.storage.layout import Artifact
from edgepress.storage.provenance import find_stale_exports, read_recorded_files, require_same_model


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_published_artifact(tmp_path / "artifact")


def test_an_export_of_the_model_beside_it_is_fresh(artifact: Artifact) -> None:
    assert find_stale_exports(artifact) == []
    load_exported_onnx(artifact.path)


@pytest.mark.parametrize("is_old", [False, True])
def test_an_export_of_a_model_that_was_replaced_is_refused(artifact: Artifact, is_old: bool) -> None:
    if is_old:  # earlier releases record the files that were exported, not where those were
        publish_onnx(artifact, model_sha256=None)
    publish_model(artifact, b"2")
    assert find_stale_exports(artifact) == [artifact.onnx]
    with pytest.raises(UserError, match=r"onnx was exported from another model .* Run 'edgepress export onnx' again\."):
        load_exported_onnx(artifact.path)


def test_an_export_of_another_pipeline_is_kept(artifact: Artifact) -> None:
    publish_onnx(artifact, model_sha256="")
    publish_model(artifact, b"2")
    assert find_stale_exports(artifact) == []
    load_exported_onnx(artifact.path)


def test_an_old_export_of_the_original_pipeline_is_kept(artifact: Artifact) -> None:
    sources = json.loads(artifact.manifest.read_text())["sources"]
    publish_onnx(artifact, model_sha256=None, sources=sources)
    publish_model(artifact, b"2")
    assert find_stale_exports(artifact) == []


def test_graphs_without_a_model_beside_them_are_loaded(artifact: Artifact, tmp_path: Path) -> None:
    artifact.onnx.rename(tmp_path / "onnx")
    load_exported_onnx(tmp_path / "onnx")


def test_neither_a_link_nor_the_current_folder_hides_what_was_published(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "graphs").symlink_to(artifact.onnx)
    (tmp_path / "quantized").symlink_to(artifact.model)
    assert read_recorded_files(tmp_path / "quantized") == read_recorded_files(artifact.model) != ()
    monkeypatch.chdir(artifact.model)
    assert read_recorded_files(Path()) == read_recorded_files(artifact.model)
    publish_model(artifact, b"2")
    monkeypatch.chdir(artifact.onnx)
    for folder in (Path(), tmp_path / "graphs"):
        with pytest.raises(UserError, match=r"was replaced since\. Run 'edgepress export onnx' again\."):
            load_exported_onnx(folder)


def test_a_model_is_not_exported_beside_another_one(tmp_path: Path) -> None:
    artifact, copy, replaced = (write_published_artifact(tmp_path / name) for name in ("a", "copy", "replaced"))
    publish_model(replaced, b"2")
    require_same_model(artifact.model, artifact)
    require_same_model(copy.model, artifact)
    require_same_model(artifact.model, Artifact(tmp_path / "new"))
    with pytest.raises(
        UserError, match=r"a has another quantized model than .*replaced/model.* Choose another output folder\."
    ):
        require_same_model(replaced.model, artifact)
