"""Hashing and listing files, and JSON."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from helpers.previous_artifact import extract_previous_artifact

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.storage.files import FileRecord, hash_file, hash_files, list_files, read_json_object, write_json


def test_files_are_hashed_in_the_order_of_their_paths_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/model.safetensors", "a.json", "b/.hidden", ".work/unit", "b/.cache/deep/x", "b/a/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    records = hash_files(tmp_path)
    assert [file.path for file in records] == ["a.json", "b/a/z.txt", "b/model.safetensors"]
    for file in records:
        assert file.bytes == len(file.path)
        assert file.sha256 == hashlib.sha256(file.path.encode()).hexdigest()


def test_a_folder_below_a_hidden_one_is_hashed_too(tmp_path: Path) -> None:
    folder = tmp_path / ".work" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2: of abc
    assert hash_files(folder) == [FileRecord(path="config.json", bytes=3, sha256=sha256)]


def test_an_empty_folder_has_no_files(tmp_path: Path) -> None:
    assert hash_files(tmp_path) == []


def test_links_are_followed_as_the_hub_cache_needs(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ba78").write_text("abc")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "file.json").symlink_to("../blobs/ba78")
    (folder / "linked").symlink_to("../blobs", target_is_directory=True)
    assert [(file.path, file.bytes) for file in hash_files(folder)] == [("file.json", 3), ("linked/ba78", 3)]


def test_links_to_folders_that_they_are_in_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "top" / "images"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("abc")
    for name, target in {"x": ".", "y": ".", "inner/up": "..", "inner/top": "../..", "again": "inner"}.items():
        (folder / name).symlink_to(target, target_is_directory=True)
    assert [file.path for file in hash_files(folder)] == ["again/file", "inner/file"]


def test_a_pipe_is_named_instead_of_being_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is no file but a pipe"):
        hash_files(tmp_path)
    with pytest.raises(UserError, match=r"a\.png is no file but a pipe.*Remove it\."):
        list_files(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(UserError, match=r"The name '.*caf\\xe9\.png' is not UTF-8"):
        hash_files(tmp_path)


def test_json_that_cannot_be_encoded_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_json({"path": os.fsdecode(b"\xe9")}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_reported_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    updates: list[tuple[str, int, int]] = []
    hash_files(tmp_path, lambda *state: updates.append(state), "hashing")
    assert updates == [("hashing", 0, 15), ("hashing", 10, 15), ("hashing", 15, 15)]


def test_a_hash_is_the_published_one(tmp_path: Path) -> None:
    """The digest of `abc` that FIPS 180-2 gives."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_written_with_chinese_as_it_is(tmp_path: Path) -> None:
    content = {"prompt": "写着“晚安”的牌子", "values": [1, 2.5, None, True]}
    write_json(content, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == content
    assert "晚安" in (tmp_path / "results.json").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), object()])
def test_values_that_json_cannot_express_are_rejected_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    write_json({"psnr": 30.0}, tmp_path / "results.json")
    with pytest.raises((ValueError, TypeError)):
        write_json({"psnr": value}, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == {"psnr": 30.0}


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json (cannot be read|does not hold a JSON object)"):
        read_json_object(tmp_path / "config.json")


def test_equal_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "rope": {"theta": 1, "theta": 2}}')
    with pytest.raises(UserError, match=r"config\.json cannot be read \(the key 'theta' is given twice\)\. Download"):
        read_json_object(tmp_path / "config.json")


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json cannot be read \(it is not UTF-8\)"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.slow
def test_configs_that_libraries_wrote_are_read(tmp_path: Path) -> None:
    """Those of diffusers, transformers and tokenizers: of the demo, and of a model of an earlier release."""
    model = extract_previous_artifact(tmp_path) / "model"
    files = [*DEMO_PIPELINE.parent.glob("*/**/*.json"), *model.rglob("*.json")]
    assert len(files) > 15
    assert all(read_json_object(file) == json.loads(file.read_text("utf-8")) for file in files)
