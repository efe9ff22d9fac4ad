"""Memory that was freed goes back to the system, so that what a process holds does not creep up.

glibc keeps freed blocks of up to 32 MB for itself; between long-lived small ones they pile up: calibrating 34 blocks
held 2.4 GB more after eight passes than after one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def malloc_trim() -> None:
    """Hands freed memory back; does nothing where the C library has no way to."""
    trim = _find_malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _find_malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
