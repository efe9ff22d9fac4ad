"""Whether folders can be written to, which is known before any work."""

from __future__ import annotations

import os
from pathlib import Path

from ..common.errors import UserError


def require_writable(folder: Path, option: str) -> None:
    """Checks that a folder can be written to, or created. Nothing is created.

    Args:
        folder: The folder.
        option: The option that names another one.

    Raises:
        UserError: It cannot.
    """
    if not is_writable(folder):
        raise UserError(f"{folder} cannot be written to. Change the permissions, or choose another {option}.")


def is_writable(folder: Path) -> bool:
    """Whether a folder can be written to, or created."""
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
