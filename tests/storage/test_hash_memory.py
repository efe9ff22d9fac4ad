"""Remembered hashes: a file is read once until it changes, and never believed after it has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgepress.storage import hash_memory
from edgepress.storage.files import hash_file
from edgepress.storage.hash_memory import CLOCK_TICK_NS, HashMemory


@pytest.fixture(autouse=True)
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are really read; the memory is an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files: list[Path] = []

    def count(file: Path) -> str:
        files.append(file)
        return hash_file(file)

    monkeypatch.setattr(hash_memory, "hash_file", count)
    return files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"0" * 100)
    time.sleep(1.5 * CLOCK_TICK_NS / 1e9)
    return path


def remember(file: Path, rehash: bool = False) -> str:
    with HashMemory(rehash) as memory:
        return memory.hash_file(file)


def test_a_file_is_read_once(file: Path, reads: list[Path]) -> None:
    assert [remember(file), remember(file)] == [hash_file(file)] * 2
    assert len(reads) == 1
    assert remember(file, rehash=True) == hash_file(file)
    assert len(reads) == 2


def test_a_changed_file_is_read_again_even_if_its_time_is_set_back(file: Path) -> None:
    before, times = remember(file), file.stat()
    file.write_bytes(b"0" * 99 + b"1")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remember(file) == hash_file(file) != before


def test_a_link_is_remembered_as_what_it_leads_to(file: Path, reads: list[Path]) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert remember(file) == remember(link)
    assert len(reads) == 1


def test_a_file_that_was_just_written_is_not_remembered(file: Path) -> None:
    file.write_bytes(b"1" * 100)
    remember(file)
    file.write_bytes(b"2" * 100)
    assert remember(file) == hash_file(file)


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_memory_that_is_no_database_is_done_without(file: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache" / "edgepress").mkdir(parents=True)
    (tmp_path / "cache" / "edgepress" / "hashes.sqlite").write_bytes(content)
    assert remember(file) == hash_file(file)


def test_a_cache_that_cannot_be_written_is_done_without(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert [remember(file), remember(file)] == [hash_file(file)] * 2
