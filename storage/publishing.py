"""Publishing: replaces folders of an artifact so that neither a crash nor a second process can leave half of one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ..common.errors import UserError
from .layout import Artifact

LOCK_FILE = "lock"
BACKUP_PREFIX = "replaced-"  # of the backup of a folder while it is being replaced
REMOVED_PREFIX = "removed-"  # of a folder that is being removed


@contextmanager
def artifact_lock(artifact: Path) -> Iterator[Path]:
    """Locks an artifact folder, which is created if needed, and recovers folders that a killed process was replacing.

    At the end, the folder for unfinished work is removed if it is empty, and so is the artifact if it was created for
    nothing.

    Yields:
        The artifact's folder for unfinished work.

    Raises:
        UserError: Another process has locked it.
    """
    work = Artifact(artifact).work
    created = [folder for folder in (artifact, *artifact.parents) if not folder.exists()]
    with _acquire(work, artifact):
        try:
            _recover_backups(artifact, work)
            yield work
        finally:
            (work / LOCK_FILE).unlink(missing_ok=True)  # while it is locked: see _acquire
            _remove_empty(work, *created)


def _acquire(work: Path, artifact: Path) -> TextIO:
    """Opens and locks the file of the lock."""
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = (work / LOCK_FILE).open("w")
        except FileNotFoundError:  # another process has just finished, and removed the folder
            continue
        except FileExistsError:  # the same, while mkdir looked whether what exists is a folder
            if work.exists() and not work.is_dir():
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise UserError(f"Another edgepress process is using {artifact}. Wait until it has finished.") from error
        with suppress(FileNotFoundError):  # the file that is locked may have been removed by its last owner
            if os.path.samestat(os.fstat(lock.fileno()), (work / LOCK_FILE).stat()):
                return lock
        lock.close()


def _remove_empty(*folders: Path) -> None:
    """Removes folders that are empty; the first that is not ends it."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def publish_folder(staged: Path, target: Path) -> None:
    """Moves a finished folder to its place in the artifact, and deletes the folder that it replaces.

    Hold the lock while calling it. If the second of the two renames fails, the old folder is put back; if the process
    is killed between them, it is recovered when the artifact is locked the next time.

    Args:
        staged: The finished folder, on the same file system.
        target: Its place: a folder directly in the artifact.
    """
    backup = Artifact.containing(target).work / f"{BACKUP_PREFIX}{target.name}"
    try:
        if target.exists():
            shutil.rmtree(backup, ignore_errors=True)
            target.rename(backup)
        staged.rename(target)
    except BaseException:
        if backup.exists() and not target.exists():
            with suppress(OSError):
                backup.rename(target)
        raise
    fsync_folder(target.parent)
    shutil.rmtree(backup, ignore_errors=True)


def remove_folder(target: Path) -> None:
    """Removes a folder of an artifact at once: a process that is killed leaves all of it, or none in its place.

    Hold the lock while calling it.

    Args:
        target: A folder directly in the artifact.
    """
    removed = Artifact.containing(target).work / f"{REMOVED_PREFIX}{target.name}"
    shutil.rmtree(removed, ignore_errors=True)
    target.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _recover_backups(artifact: Path, work: Path) -> None:
    """Restores backups whose replacement is missing, and deletes the others, and what was being removed."""
    for folder in work.glob(f"{REMOVED_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
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
