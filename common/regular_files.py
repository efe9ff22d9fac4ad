"""Refuses to read what is no file: pipes, sockets and devices, which may have no end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from .errors import UserError


def require_regular(path: Path, advice: str | Callable[[Path], str] = "Give a file.") -> None:
    """Checks that a path can be read to its end, if there is something.

    Args:
        path: The path.
        advice: A sentence that says what to do, or what makes it of the path.

    Raises:
        UserError: It is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        remedy = advice if isinstance(advice, str) else advice(path)
        raise UserError(f"{path} is no file but a pipe, socket or device, which may have no end. {remedy}")


def read_regular_text(path: Path, errors: str = "strict", newline: str | None = None) -> str:
    """Reads a UTF-8 file to its end.

    Args:
        path: The file.
        errors: What becomes of bytes that are not UTF-8, as `Path.read_text` has it.
        newline: Which line ends become those of Linux, as `open` has it: all of them, or with "" none.

    Raises:
        OSError: It cannot be read, or is a pipe, a socket or a device, which may have no end.
        UnicodeDecodeError: It is not UTF-8.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe, socket or device", str(path))
    with path.open(encoding="utf-8", errors=errors, newline=newline) as stream:
        return stream.read()
