"""The layout of an artifact."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.storage.layout import Artifact, locate_folder, solution_folder, solution_folders


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_folders_have_the_names_that_users_know() -> None:
    artifact = Artifact(Path("artifacts/orin"))
    assert Artifact.of_device("orin") == artifact
    paths = {
        artifact.model: "model",
        artifact.onnx: "onnx",
        artifact.rknn: "rknn",
        artifact.evaluation: "evaluation",
        artifact.bench: "bench",
        artifact.manifest: "manifest.json",
        artifact.timings: "timings.json",
        artifact.work: ".work",
    }
    assert {path.relative_to(artifact.path).as_posix(): name for path, name in paths.items()} == {
        name: name for name in paths.values()
    }
    assert Artifact.containing(artifact.onnx) == artifact


def test_contents_are_detected_by_their_main_file(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path)
    for folder in (artifact.model, artifact.onnx, artifact.rknn):
        folder.mkdir()
    assert (artifact.has_model, artifact.has_onnx, artifact.has_rknn) == (False, False, False)
    touch(artifact.onnx / "pipeline.json")
    assert (artifact.has_model, artifact.has_onnx, artifact.has_rknn) == (False, True, False)
    touch(artifact.rknn / "pipeline.json")
    touch(artifact.model / "model_index.json")
    assert (artifact.has_model, artifact.has_onnx, artifact.has_rknn) == (True, True, True)


def test_solutions_of_a_component_are_sorted_by_scheme(tmp_path: Path) -> None:
    folders = [solution_folder(tmp_path, scheme, "transformer") for scheme in ("w8a8", "qdq")]
    for folder in (*folders, solution_folder(tmp_path, "qdq", "text_encoder")):
        folder.mkdir(parents=True)
    assert solution_folders(tmp_path, "transformer") == folders[::-1]
    assert folders[0] == tmp_path / "solutions" / "w8a8" / "transformer"


@pytest.mark.parametrize("name", ["model", "onnx", "rknn"])
def test_a_folder_is_the_same_however_its_path_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "artifact" / name
    (folder / "tokenizer").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for path in (folder, Path(), Path("tokenizer/.."), tmp_path / "link"):
        assert locate_folder(path).name == name
        assert Artifact.containing(path).path == tmp_path / "artifact"


def test_a_link_to_a_shared_store_belongs_to_the_artifact_that_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "artifact").mkdir()
    link = tmp_path / "artifact" / "model"
    link.symlink_to(tmp_path / "store")
    assert Artifact.containing(link).path == tmp_path / "artifact"
