"""Writing that leaves either the old file or the whole new one, and nothing beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

from ..common.file_lock import lock_file

TEMPORARY_NAME = re.compile(r"\.edgepress-[0-9a-f]{32}\.new")


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file in one piece: under a new temporary name, synced to disk, and then renamed.

    What killed processes left of such files in the same folder is removed.

    Args:
        path: The file to write.
        write: Writes the content to the temporary path that it is given, where there is an empty file.

    Raises:
        OSError: It cannot be written. The error names `path`, not the temporary file.
    """
    try:
        remove_leftovers(path.parent)
        with _reserve_file(path.parent) as temporary:
            write(temporary)
            temporary.chmod(0o666 & ~_read_umask())  # safetensors creates files that only the owner can read
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    except OSError as error:
        if TEMPORARY_NAME.fullmatch(Path(str(error.filename)).name):
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files in a folder whose process was killed."""
    for file in folder.glob(".edgepress-*"):
        if TEMPORARY_NAME.fullmatch(file.name):
            with suppress(OSError), file.open("rb+") as stream:  # OSError: just renamed, or another user's
                if lock_file(stream):
                    file.unlink()


@contextmanager
def _reserve_file(folder: Path) -> Iterator[Path]:
    """Creates a temporary file, which is locked while it is in use, and removes it unless it was renamed."""
    while True:
        temporary = folder / f".edgepress-{uuid4().hex}.new"
        with temporary.open("xb") as stream:
            with suppress(OSError):  # a file system without locks
                lock_file(stream)
            if not temporary.exists():  # removed as a leftover before it was locked
                continue
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
            return


@cache
def _read_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
