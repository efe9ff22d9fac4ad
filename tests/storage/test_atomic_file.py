"""Writing files in one piece: what was there before stays until the end, and nothing stays beside the file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgepress.storage.atomic_file import atomic_write

KILLED = """
import os, signal, sys
from pathlib import Path
from edgepress.storage.atomic_file import atomic_write

def write(temporary):
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

atomic_write(Path(sys.argv[1]), write)
"""


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "outputs.pt"
    file.write_bytes(b"old")

    def write(path: Path) -> None:
        assert path.parent == tmp_path
        assert path != file
        path.write_bytes(b"new")
        assert file.read_bytes() == b"old"

    atomic_write(file, write)
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_unchanged_and_alone_if_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "outputs.pt"
    file.write_bytes(b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"ne")
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="power"):
        atomic_write(file, fail)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_files_of_the_user_stay_whatever_their_names_are(tmp_path: Path) -> None:
    names = {"a.json.new", ".a.json.new", ".edgepress-notes.new", f".edgepress-{'0' * 32}.txt", ".tmp123456"}
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    atomic_write(tmp_path / "a.json", lambda path: path.write_bytes(b"{}"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *names}
    assert all((tmp_path / name).read_bytes() == name.encode() for name in names)


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    process = subprocess.run([sys.executable, "-c", KILLED, file], check=False)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.read_bytes() == b"half"
    atomic_write(tmp_path / "b.json", lambda path: path.write_bytes(b"{}"))
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"outer")
        atomic_write(tmp_path / "inner", lambda path: path.write_bytes(b"inner"))

    atomic_write(tmp_path / "outer", write)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"inner": b"inner", "outer": b"outer"}


def test_a_temporary_file_that_is_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks for leftovers between creating the file and locking it."""
    removed: list[Path] = []

    def remove_first(_: object) -> bool:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        return True

    monkeypatch.setattr("edgepress.storage.atomic_file.lock_file", remove_first)
    atomic_write(tmp_path / "a", lambda path: path.write_bytes(b"a"))
    assert len(removed) == 1
    assert (tmp_path / "a").read_bytes() == b"a"


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 255)
    atomic_write(file, lambda path: path.write_bytes(b"a"))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_errors_name_the_file_and_not_the_temporary_one(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    file = tmp_path / folder / "a.json"
    with pytest.raises(OSError, match=r"a\.json") as error:
        atomic_write(file, lambda path: path.write_bytes(b"a"))
    assert error.value.filename == str(file)
