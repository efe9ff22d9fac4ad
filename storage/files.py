"""TODO"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def hash_file(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Has a file written under a temporary name, puts it on the disk, then renames it."""
    temporary = path.with_name(path.name + ".new")
    write(temporary)
    temporary.chmod(0o666 & ~_read_umask())  # safetensors lets nobody else read what it writes
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


@cache
def _read_umask() -> int:
    """The rights that the process keeps from new files; it can be asked only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(content: Any, path: Path) -> None:
    """Writes JSON in one piece."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, lambda new: _write_text(text, new))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")
