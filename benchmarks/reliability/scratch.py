"""Folders for the many small files of fuzzing and of injected faults."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # of Linux: a file system that is much faster than a disk


@contextmanager
def make_scratch_folder(prefix: str) -> Iterator[Path]:
    """Yields an empty folder, in memory where that can be, and removes it at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as name:
        yield Path(name)
