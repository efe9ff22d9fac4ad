"""Files against their records: each way in which one can differ has its status."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.published_artifact import write_weights

from edgepress.common.errors import UserError
from edgepress.storage.files import FileRecord, hash_files
from edgepress.storage.hash_memory import HashMemory
from edgepress.storage.integrity import FileStatus, find_added_files, find_problems, require_inside, require_intact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "folder" / "a.json").write_bytes(b"abc")
    write_weights(tmp_path / "folder" / "b" / "w.safetensors", b"rest")
    return tmp_path / "folder"


def flip(file: Path, position: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def replace_by_link(file: Path) -> Path:
    target = file.parents[2] / "store"
    file.rename(target)
    file.symlink_to(target)
    return target


CHEAP: dict[FileStatus, Callable[[Path], object]] = {
    FileStatus.MISSING: Path.unlink,
    FileStatus.TRUNCATED: lambda file: os.truncate(file, file.stat().st_size - 1),
    FileStatus.CORRUPT: lambda file: flip(file, 0),
    FileStatus.LINK: lambda file: flip(replace_by_link(file)),
}


@pytest.mark.parametrize("status", CHEAP)
@pytest.mark.parametrize("deep", [True, False])
def test_what_takes_no_reading_is_always_found(folder: Path, status: FileStatus, deep: bool) -> None:
    files = hash_files(folder)
    CHEAP[status](folder / "b" / "w.safetensors")
    with HashMemory() as memory:
        (problem,) = find_problems(folder, files, memory if deep else None)
    assert (problem.path, problem.status) == ("b/w.safetensors", status)


def test_a_flipped_bit_is_found_by_its_hash(folder: Path) -> None:
    files = hash_files(folder)
    flip(folder / "b" / "w.safetensors")
    assert list(find_problems(folder, files)) == []
    with HashMemory() as memory:
        (problem,) = find_problems(folder, files, memory)
        assert (problem.path, problem.status) == ("b/w.safetensors", FileStatus.CHANGED)
        with pytest.raises(UserError, match=r"w\.safetensors was changed: it has another SHA-256\. Do it\."):
            require_intact(folder, files, "Do it.", memory)


def test_links_into_a_store_are_followed_if_they_lead_to_what_was_published(folder: Path) -> None:
    files = hash_files(folder)
    replace_by_link(folder / "b" / "w.safetensors")
    assert list(find_problems(folder, files)) == []


def test_a_folder_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    files = hash_files(folder)
    (tmp_path / "link").symlink_to(folder)
    assert list(find_problems(tmp_path / "link", files)) == []
    require_inside(tmp_path / "link", tmp_path / "link" / "a.json")


def test_a_link_without_a_recorded_hash_is_not_followed(folder: Path) -> None:
    target = replace_by_link(folder / "b" / "w.safetensors")
    with pytest.raises(UserError, match=f"w.safetensors is a link to {target}, and the export holds no SHA-256"):
        require_inside(folder, folder / "b" / "w.safetensors")


MAKE_NO_FILE: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "dangling link": lambda file: file.symlink_to("nowhere"),
    "endless link": lambda file: file.symlink_to(file.name),
}


@pytest.mark.parametrize("make", MAKE_NO_FILE.values(), ids=MAKE_NO_FILE)
def test_what_is_not_a_file_is_missing(folder: Path, make: Callable[[Path], object]) -> None:
    record = FileRecord(path="x", bytes=0, sha256="0" * 64)
    make(folder / "x")
    (problem,) = find_problems(folder, [record])
    assert problem.status == FileStatus.MISSING


def test_added_files_and_linked_folders_are_found(folder: Path) -> None:
    names = {file.path for file in hash_files(folder)}
    assert list(find_added_files(folder, names)) == []
    (folder / "b" / "extra").touch()
    (folder / ".hidden").touch()
    (folder / "linked").symlink_to(folder, target_is_directory=True)
    assert {problem.path for problem in find_added_files(folder, names)} == {"b/extra", "linked"}


def test_a_linked_folder_of_published_files_is_not_added(folder: Path, tmp_path: Path) -> None:
    files = hash_files(folder)
    (folder / "b").rename(tmp_path / "store")
    (folder / "b").symlink_to(tmp_path / "store")
    assert list(find_problems(folder, files)) == []
    assert list(find_added_files(folder, {file.path for file in files})) == []
