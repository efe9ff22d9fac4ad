"""The manifest: files with their digests, round trip, and refusals."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import edgepress
from edgepress.common.errors import UserError
from edgepress.storage.manifest import FileRecord, Manifest, hash_files, library_versions, read_manifest, write_manifest
from edgepress.storage.publishing import artifact_lock, publish_folder


def manifest(**changes: Any) -> Manifest:
    file = FileRecord(path="transformer/config.json", bytes=3, sha256="00" * 32)
    content: dict[str, Any] = {
        "device": "orin",
        "key": "0123456789abcdef",
        "source": "demo",
        "recipe": {"device": "orin", "description": "牌子"},
        "prompts_sha256": "11" * 32,
        "sources": [file],
        "files": [file],
        "layers": [{"name": "layers.0.w2", "rtn_error": 0.25, "error": 0.125}],
        "kept": 3,
        "sizes": {"transformer": {"before": 100, "after": 30}},
        "savings": {"transformer": {"4-bit linears": 70}},
        "overflowing": [],
        "versions": {"edgepress": "0.1.0"},
    }
    return Manifest(**(content | changes))


def test_files_are_described_in_the_order_of_their_paths_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/model.safetensors", "a.json", "b/.hidden", ".work/unit", "b/.cache/deep/x", "b/a/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    records = hash_files(tmp_path)
    assert [file.path for file in records] == ["a.json", "b/a/z.txt", "b/model.safetensors"]
    for file in records:
        assert file.bytes == len(file.path)
        assert file.sha256 == hashlib.sha256(file.path.encode()).hexdigest()


def test_a_folder_below_a_hidden_one_is_described_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ".work" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2: of abc
    assert hash_files(folder) == [FileRecord(path="config.json", bytes=3, sha256=sha256)]


def test_an_empty_folder_is_described_as_nothing(tmp_path: Path) -> None:
    assert hash_files(tmp_path) == []


def test_links_are_followed_as_the_hub_cache_needs(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ba78").write_text("abc")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "file.json").symlink_to("../blobs/ba78")
    (folder / "linked").symlink_to("../blobs", target_is_directory=True)
    assert [(file.path, file.bytes) for file in hash_files(folder)] == [("file.json", 3), ("linked/ba78", 3)]


def test_describing_says_how_far_it_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    updates: list[tuple[str, int, int]] = []
    hash_files(tmp_path, lambda *state: updates.append(state), "hashing")
    assert updates == [("hashing", 0, 15), ("hashing", 10, 15), ("hashing", 15, 15)]


def test_versions_are_those_that_are_installed() -> None:
    installed = library_versions()
    assert installed["edgepress"] == edgepress.__version__
    assert installed["torch"] == version("torch")
    assert installed["diffusers"] == version("diffusers")


def test_a_manifest_survives_writing(tmp_path: Path) -> None:
    write_manifest(manifest(), tmp_path)
    assert read_manifest(tmp_path) == manifest()
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8"))["device"] == "orin"
    assert "牌子" in (tmp_path / "manifest.json").read_text("utf-8")


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        write_manifest(manifest(), tmp_path)
        contents.append((tmp_path / "manifest.json").read_bytes())
    assert contents[0] == contents[1]


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "not-there") is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"device": "orin"}', "\xff", json.dumps(manifest().model_dump() | {"new": 1})]
)
def test_a_manifest_that_cannot_be_read_is_named_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"manifest\.json is no manifest of this version") as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)
    assert "--force" in str(raised.value)


def test_a_number_that_json_has_no_word_for_is_refused_and_the_old_manifest_kept(tmp_path: Path) -> None:
    write_manifest(manifest(), tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(manifest(layers=[{"error": float("nan")}]), tmp_path)
    assert read_manifest(tmp_path) == manifest()


def test_a_manifest_cannot_be_changed() -> None:
    unchanged = manifest()
    with pytest.raises(ValidationError, match="frozen"):
        unchanged.device = "other"


# ---------------------------------------------------------------- publishing


def folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def files(artifact: Path) -> dict[str, str]:
    """What an artifact folder holds, the lock left out."""
    contents = {
        path.relative_to(artifact).as_posix(): path.read_text() for path in artifact.rglob("*") if path.is_file()
    }
    return {name: content for name, content in contents.items() if name != ".work/lock"}


def test_what_is_published_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with artifact_lock(tmp_path) as work:
            publish_folder(folder(work / "stage", content), tmp_path / "onnx")
        assert files(tmp_path) == {"onnx/file": content}


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_kill_between_two_renames_loses_nothing(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "onnx", "old")
    renames: list[Path] = []
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        renames.append(self)
        if len(renames) == killed_at:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched, artifact_lock(tmp_path) as work:
        staged = folder(work / "stage", "new")
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            publish_folder(staged, tmp_path / "onnx")
    with artifact_lock(tmp_path):  # whatever it is that works there next, and whether or not it publishes
        assert files(tmp_path) == {"onnx/file": "old", ".work/stage/file": "new"}


def test_a_kill_after_both_renames_leaves_the_new(tmp_path: Path) -> None:
    folder(tmp_path / "onnx", "new")
    folder(tmp_path / ".work" / "replaced-onnx", "old")
    folder(tmp_path / ".work" / "replaced-rknn", "another's")
    with artifact_lock(tmp_path):
        assert files(tmp_path) == {"onnx/file": "new", "rknn/file": "another's"}
