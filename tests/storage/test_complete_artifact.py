"""An artifact of which something is missing is neither described, compared nor packed for a board; `info` says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.published_artifact import write_published_artifact

import edgepress
from edgepress.api.folder_info import ArtifactInfo, ExportInfo, PipelineInfo
from edgepress.api.inspection import to_dict
from edgepress.common.errors import UserError
from edgepress.serving.board_kit import write_board_kit
from edgepress.storage.complete_artifact import find_incomplete_files
from edgepress.storage.layout import Artifact


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published_artifact(tmp_path_factory.mktemp("sound") / "artifact").path


@pytest.mark.parametrize("folder", ["model", "onnx"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_missing_and_shortened_files_are_named(
    sound: Path, tmp_path: Path, folder: str, damage: Callable[[Path], object]
) -> None:
    artifact = Path(shutil.copytree(sound, tmp_path / "artifact"))
    file = max((artifact / folder).rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    damage(file)
    before = sorted(artifact.rglob("*"))
    for use in (edgepress.describe, write_board_kit, lambda path: edgepress.diff(sound, path)):
        with pytest.raises(UserError, match=rf"{file.name}.*edgepress verify"):
            use(artifact)
    assert sorted(artifact.rglob("*")) == before


def change_a_letter(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b"Z", b"Y") if b"Z" in content else content[:-1] + b" ")


def add_a_file(file: Path) -> None:
    file.with_name("copy.json").touch()


@pytest.mark.parametrize(
    ("path", "damage", "status"),
    [
        ("model/vae/model.safetensors", Path.unlink, "missing"),
        ("model/model_index.json", Path.unlink, "missing"),
        ("model/model_index.json", change_a_letter, "changed"),
        ("model/vae/model.safetensors", add_a_file, "added"),
        ("onnx/caption-00001-of-00001.safetensors", lambda file: file.write_bytes(b""), "wrong size"),
        ("onnx/vae_decoder.onnx", Path.unlink, "missing"),
        ("onnx/vae_decoder.onnx", change_a_letter, "changed"),
        ("onnx/vae_decoder.onnx", add_a_file, "added"),
        ("onnx/pipeline.json", Path.unlink, "missing"),
        ("manifest.json", Path.unlink, "missing"),
    ],
)
def test_info_says_what_is_not_as_it_was_published(
    sound: Path, tmp_path: Path, path: str, damage: Callable[[Path], object], status: str
) -> None:
    artifact = Path(shutil.copytree(sound, tmp_path / "artifact"))
    damage(artifact / path)
    name = f"{Path(path).parent}/copy.json" if status == "added" else path
    info = edgepress.info(artifact)
    assert isinstance(info, ArtifactInfo)
    assert [(problem.path, problem.status) for problem in info.problems] == [(name, status)]
    assert f"{name}: {status}: it " in str(info)
    assert to_dict(info)["problems"][0]["path"] == name


def test_info_of_one_folder_says_it_too(sound: Path, tmp_path: Path) -> None:
    artifact = Path(shutil.copytree(sound, tmp_path / "artifact"))
    assert not list(find_incomplete_files(Artifact(artifact)))
    (artifact / "onnx" / "caption.onnx").unlink()
    (artifact / "model" / "vae" / "model.safetensors").unlink()
    export, model = edgepress.info(artifact / "onnx"), edgepress.info(artifact / "model")
    assert isinstance(export, ExportInfo)
    assert [problem.path for problem in export.problems] == ["onnx/caption.onnx"]
    assert isinstance(model, PipelineInfo)
    assert model.problem.startswith(f"{artifact}/model/vae/model.safetensors is missing. ")
