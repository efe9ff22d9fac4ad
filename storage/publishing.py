"""Publishing: replaces folders of an artifact so that neither a crash nor a second process can leave half of one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ..common.errors import UserError
from ..common.file_lock import lock_file
from .layout import PUBLISHED, Artifact

LOCK_FILE = "lock"
# Folders in `.work` that are not there for long. A random number is part of their names, so that none is a user's.
BACKUP = "replaced"  # of a folder while it is being replaced, which the name says as well
REMOVED = "removed"  # a folder that is being removed
STAGE = "stage"  # what will be published
BACKUP_NAME = re.compile(rf"{BACKUP}-({'|'.join(PUBLISHED)})-[0-9a-f]{{32}}")
TEMPORARY_NAME = re.compile(rf"(?:{REMOVED}|{STAGE})-[a-z]+-[0-9a-f]{{32}}")


@contextmanager
def artifact_lock(artifact: Path) -> Iterator[Path]:
    """Locks an artifact folder, which is created if needed, and recovers folders that a killed process was replacing.

    What a killed process staged or was removing is removed. At the end, the folder for unfinished work is removed if it
    is empty, and so is the artifact if it was created for nothing.

    Yields:
        The artifact's folder for unfinished work.

    Raises:
        UserError: Another process has locked it, alone or shared.
    """
    work = Artifact(artifact).work
    created = [folder for folder in (artifact, *artifact.parents) if not folder.exists()]
    with _acquire(work, artifact):
        try:
            _clear_up(artifact, work)
            yield work
        finally:
            (work / LOCK_FILE).unlink(missing_ok=True)  # while it is locked: see _acquire
            _remove_empty(work, *created)


@contextmanager
def shared_lock(work: Path) -> Iterator[None]:
    """Keeps `artifact_lock` from others while what is in a folder `.work` is in use; several may hold it at once.

    The folder is created if needed, and stays.

    Raises:
        UserError: Another process has locked the artifact.
    """
    with _acquire(work, work.parent, shared=True):
        yield


def _acquire(work: Path, artifact: Path, *, shared: bool = False) -> BinaryIO:
    """Opens and locks the file of the lock."""
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = (work / LOCK_FILE).open("ab")
        except FileNotFoundError:  # another process has just finished, and removed the folder
            continue
        except FileExistsError:  # the same, while mkdir looked whether what exists is a folder
            if work.exists() and not work.is_dir():
                raise
            continue
        if not lock_file(lock, shared=shared):
            lock.close()
            raise UserError(f"Another edgepress process is using {artifact}. Wait until it has finished.")
        if os.fstat(lock.fileno()).st_size:
            lock.close()
            raise UserError(f"{work / LOCK_FILE} was not made by edgepress: it is not empty. Move it to another place.")
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
    backup = _new_name(Artifact.containing(target).work, BACKUP, target.name)
    try:
        if target.exists():
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
    removed = _new_name(Artifact.containing(target).work, REMOVED, target.name)
    target.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


@contextmanager
def staging_folder(work: Path, purpose: str) -> Iterator[Path]:
    """Creates an empty folder, and removes what is left of it at the end.

    Args:
        work: The artifact's folder for unfinished work, which is locked.
        purpose: A word that is part of the folder's name.
    """
    folder = _new_name(work, STAGE, purpose)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_name(work: Path, kind: str, purpose: str) -> Path:
    return work / f"{kind}-{purpose}-{uuid4().hex}"


def _clear_up(artifact: Path, work: Path) -> None:
    """Restores backups whose replacement is missing, and removes the others and what was staged or being removed."""
    for folder in work.iterdir():
        backup = BACKUP_NAME.fullmatch(folder.name)
        if backup and not (artifact / backup[1]).exists():
            folder.rename(artifact / backup[1])
        elif backup or TEMPORARY_NAME.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk, so that renames survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
