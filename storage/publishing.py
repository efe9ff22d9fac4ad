"""Publishing: replaces folders of an artifact so that neither a crash nor a second process can leave half of one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from .layout import Artifact

BACKUP_PREFIX = "replaced-"  # of the backup of a folder while it is being replaced


@contextmanager
def artifact_lock(artifact: Path) -> Iterator[Path]:
    """Locks an artifact folder, which is created if needed, and recovers folders that a killed process was replacing.

    Yields:
        The artifact's folder for unfinished work.

    Raises:
        UserError: Another process has locked it.
    """
    work = Artifact(artifact).work
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another edgepress process is using {artifact}. Wait for it, or give another --output."
            ) from error
        _recover_backups(artifact, work)
        yield work


def publish_folder(staged: Path, target: Path) -> None:
    """Moves a finished folder to its place in the artifact, and deletes the folder that it replaces.

    Hold the lock while calling it. If the process is killed between the two renames, the old folder is recovered when
    the artifact is locked the next time.

    Args:
        staged: The finished folder, on the same file system.
        target: Its place: a folder directly in the artifact.
    """
    backup = Artifact.containing(target).work / f"{BACKUP_PREFIX}{target.name}"
    if target.exists():
        shutil.rmtree(backup, ignore_errors=True)
        target.rename(backup)
    staged.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(backup, ignore_errors=True)


def _recover_backups(artifact: Path, work: Path) -> None:
    """Restores backups whose replacement is missing, and deletes the others."""
    for backup in work.glob(f"{BACKUP_PREFIX}*"):
        target = artifact / backup.name.removeprefix(BACKUP_PREFIX)
        if target.exists():
            shutil.rmtree(backup, ignore_errors=True)
        else:
            backup.rename(target)


def fsync_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk, so that renames survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
