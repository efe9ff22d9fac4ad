"""Refuses to read what is no file: pipes, sockets and devices, which may have no end."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError


def require_regular(path: Path, advice: str = "Give a file.") -> None:
    """Checks that a path can be read to its end, if there is something.

    Args:
        path: The path.
        advice: A sentence that says what to do.

    Raises:
        UserError: It is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no file but a pipe, socket or device, which may have no end. {advice}")
