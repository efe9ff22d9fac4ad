"""Saved tracebacks, read back; what commands say about them is tested in tests/cli/test_failures.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import edgepress
from edgepress.common.traceback_files import save_traceback


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "edgepress" / "tracebacks"


def make_error() -> ValueError:
    try:
        try:
            [][0]
        except IndexError as error:
            raise ValueError("half a character: \ud800") from error
    except ValueError as error:
        return error


def test_a_file_holds_the_command_the_versions_and_the_causes(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["edgepress", "quantize", "--recipe", "my board.yaml"])
    file = save_traceback(make_error())
    assert file
    assert file.parent == state
    text = file.read_text("utf-8")
    assert text.startswith(f"edgepress {edgepress.__version__}, Python {sys.version.split()[0]} on ")
    assert "edgepress quantize --recipe 'my board.yaml'" in text  # can be pasted into a shell
    for part in ("IndexError: list index out of range", "direct cause", r"half a character: \ud800", "in make_error"):
        assert part in text


def test_each_error_has_a_file_of_its_own(state: Path) -> None:
    """However many there are in a second."""
    files = [save_traceback(ValueError(f"number {number}")) for number in range(5)]
    assert [file.read_text("utf-8").splitlines()[-1] for file in files if file] == [
        f"ValueError: number {number}" for number in range(5)
    ]
    assert len(list(state.iterdir())) == 5


def test_the_oldest_files_are_deleted_and_no_others(state: Path) -> None:
    state.mkdir(parents=True)
    (state / "notes.txt").touch()
    for age in range(30):
        file = state / f"edgepress-{age}.txt"
        file.touch()
        os.utime(file, (10**9 - age, 10**9 - age))
    newest = save_traceback(make_error())
    assert newest
    remaining = {path.name for path in state.iterdir()}
    assert remaining == {newest.name, "notes.txt", *(f"edgepress-{age}.txt" for age in range(19))}


def test_without_a_place_to_write_to_nothing_is_raised(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").touch()  # a file where the folder should be
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = save_traceback(make_error())
    assert file
    assert file.parent == tmp_path
    assert not state.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    assert save_traceback(make_error()) is None
