"""The cause of a failure is read from a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.benchmarks.peers import errors


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback …\nImportError: Requires mslk >= 1.0.0\n", "ImportError: Requires mslk >= 1.0.0"),
        ("a.b.SomeError: why\nsome warning at exit\n", "a.b.SomeError: why"),
        ("ERROR: No matching distribution found for x\n\n", "No matching distribution found for x"),
        ("NotImplementedError\n", "NotImplementedError"),
        ("loading\nKilled\n", "Killed"),
        ("", "no output"),
        ("ValueError: a | b\n", "ValueError: a / b"),
        ("\x1b[31;1mRuntimeError: no data\x1b[0m\n", "RuntimeError: no data"),
    ],
)
def test_the_cause_is_the_last_error(log: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log, "utf-8")
    assert errors.find_cause(tmp_path / "log") == line


def test_a_long_cause_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"ValueError: {'x' * 1000}", "utf-8")
    assert len(errors.find_cause(tmp_path / "log")) == errors.MAX_LENGTH
