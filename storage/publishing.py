"""TODO"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError

WORK_DIR = ".work"  # the folder in an artifact for work in flight


BACKUP_PREFIX = "replaced-"  # what a folder's name begins with while a new one takes its place


@contextmanager
def artifact_lock(artifact: Path) -> Iterator[Path]:
    """Holds an artifact folder against a second process; gives the folder in it for work in flight.

    What a killed process was about to replace is back in its place.

    Raises:
        UserError: another process holds it.
    """
    work = artifact / WORK_DIR
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another edgepress works on {artifact}; wait for it or give another --output.") from error
        _recover_backups(artifact, work)
        yield work


def publish_folder(staged: Path, target: Path) -> None:
    """Puts a folder of the work in flight in its place in the artifact by renaming; one that is there goes.

    Call it under the lock.

    A process that is killed between the two renames leaves no folder there, until the next one holds the lock.
    """
    backup = target.parent / WORK_DIR / f"{BACKUP_PREFIX}{target.name}"
    if target.exists():
        shutil.rmtree(backup, ignore_errors=True)
        target.rename(backup)
    staged.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(backup, ignore_errors=True)


def _recover_backups(artifact: Path, work: Path) -> None:
    """Folders that were set aside: back where nothing took their place, else gone."""
    for backup in work.glob(f"{BACKUP_PREFIX}*"):
        target = artifact / backup.name.removeprefix(BACKUP_PREFIX)
        if target.exists():
            shutil.rmtree(backup, ignore_errors=True)
        else:
            backup.rename(target)


def fsync_folder(folder: Path) -> None:
    """Puts a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
