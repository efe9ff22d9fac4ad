"""Moves the files of an earlier evaluation away, so that no outdated verdict stays after an error or an aborted run."""

from __future__ import annotations

from pathlib import Path

from .writer import HTML_FILE, JUNIT_FILE, MARKDOWN_FILE

RESULTS_FILE = "results.json"
EVALUATION_FILES = (RESULTS_FILE, HTML_FILE, MARKDOWN_FILE, JUNIT_FILE)
BACKUP_SUFFIX = ".old"


def stash_previous(folder: Path) -> None:
    """Renames the files of an earlier run to backups, replacing older backups."""
    for file in (folder / name for name in EVALUATION_FILES):
        if file.exists():
            file.replace(_get_backup_path(file))


def discard_previous(folder: Path) -> None:
    """Removes the backups; called once there are new results."""
    for name in EVALUATION_FILES:
        _get_backup_path(folder / name).unlink(missing_ok=True)


def _get_backup_path(file: Path) -> Path:
    return file.with_name(file.name + BACKUP_SUFFIX)
