"""Puts the files of an earlier evaluation aside, so that no older verdict stands beside an error or a cut run."""

from __future__ import annotations

from pathlib import Path

from .writer import HTML_FILE, JUNIT_FILE, MARKDOWN_FILE

RESULTS_FILE = "results.json"
EVALUATION_FILES = (RESULTS_FILE, HTML_FILE, MARKDOWN_FILE, JUNIT_FILE)
BACKUP_SUFFIX = ".old"


def stash_previous(folder: Path) -> None:
    """Renames what an earlier run wrote; what was put aside before gives way to it."""
    for file in (folder / name for name in EVALUATION_FILES):
        if file.exists():
            file.replace(_backup_path(file))


def discard_previous(folder: Path) -> None:
    """Removes what was put aside, once there are newer results."""
    for name in EVALUATION_FILES:
        _backup_path(folder / name).unlink(missing_ok=True)


def _backup_path(file: Path) -> Path:
    return file.with_name(file.name + BACKUP_SUFFIX)
