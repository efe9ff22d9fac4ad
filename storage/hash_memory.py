"""Remembers hashes of files that have not changed since, in the user's cache, so that large weights are read once.

A file is the same while its path, size, time of modification and time of change are. The last one is set by the system
whenever content or attributes change, and programs cannot set it back.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from ..common.user_folders import get_cache_folder
from .files import hash_file

FILE_NAME = "hashes.sqlite"
TABLE = (
    "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, bytes INTEGER, modified INTEGER, changed INTEGER, "
    "sha256 TEXT)"
)
TIMEOUT_S = 5.0  # to wait for a process that writes; without the memory a file is read again
# A file that was just written could be written again within one tick of the file system's clock, and look the same.
CLOCK_TICK_NS = 50_000_000


class HashMemory:
    """Hashes of files by path. It is a convenience: where it cannot be read or written, files are read again.

    Args:
        rehash: Whether to read files again that are remembered.
    """

    def __init__(self, rehash: bool = False) -> None:
        self._rehash = rehash
        self._connection = _connect()

    def __enter__(self) -> HashMemory:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def hash_file(self, file: Path) -> str:
        """The SHA-256 of a file in hexadecimal."""
        path, state = str(file.resolve()), _read_state(file)
        known = None if self._rehash else self._find(path, state)
        if known is not None:
            return known
        sha256 = hash_file(file)
        if _read_state(file) == state and time.time_ns() - state[2] > CLOCK_TICK_NS:
            self._remember(path, state, sha256)
        return sha256

    def _find(self, path: str, state: tuple[int, int, int]) -> str | None:
        query = "SELECT sha256 FROM hashes WHERE path = ? AND bytes = ? AND modified = ? AND changed = ?"
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(query, (path, *state)).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row else None

    def _remember(self, path: str, state: tuple[int, int, int], sha256: str) -> None:
        if self._connection is None:
            return
        try:
            with self._connection:
                self._connection.execute("REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", (path, *state, sha256))
        except sqlite3.Error:  # a full disk, or another process that writes for long
            self._connection.close()
            self._connection = None


def _read_state(file: Path) -> tuple[int, int, int]:
    """Size in bytes, and the times of modification and of change in nanoseconds."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _connect() -> sqlite3.Connection | None:
    """Opens the memory; None where that is impossible: no home folder, a read-only one, or a file of another kind."""
    try:
        folder = get_cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / FILE_NAME, timeout=TIMEOUT_S)
    except (OSError, RuntimeError, sqlite3.Error):
        return None
    try:
        with connection:
            connection.execute(TABLE)
    except sqlite3.Error:
        connection.close()
        return None
    return connection
