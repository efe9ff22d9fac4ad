"""Locks of files, which end with the process that holds them."""

from __future__ import annotations

from typing import IO


def lock_file(file: IO[bytes] | int, *, shared: bool = False) -> bool:
    """Locks an open file without waiting, until it is closed. Systems without such locks, as Windows, lock nothing.

    Args:
        file: The file, or its descriptor.
        shared: Whether other processes may hold a shared lock at the same time.

    Returns:
        Whether it is locked now; False: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
