"""Puts the files of an earlier evaluation aside, so that no older verdict stands beside an error or a cut run."""

from __future__ import annotations

from pathlib import Path

from .report.writing import CASES, PAGE, SUMMARY

RESULTS = "results.json"
FILES = (RESULTS, PAGE, SUMMARY, CASES)
SUFFIX = ".old"


def put_aside(folder: Path) -> None:
    """Renames what an earlier run wrote; what was put aside before gives way to it."""
    for file in (folder / name for name in FILES):
        if file.exists():
            file.replace(_old(file))


def forget(folder: Path) -> None:
    """Removes what was put aside, once there are newer results."""
    for name in FILES:
        _old(folder / name).unlink(missing_ok=True)


def _old(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)
