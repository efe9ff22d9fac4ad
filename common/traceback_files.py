"""Saves tracebacks of defects, so that they can be reported."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from .. import __version__
from .user_folders import get_traceback_folder

PREFIX, SUFFIX = "edgepress-", ".txt"
MAX_FILES = 20


def save_traceback(error: BaseException) -> Path | None:
    """Saves the traceback of an error, with the command and the versions, in the user's state folder.

    The oldest files are deleted beyond twenty. Where that folder cannot be written to, the temporary folder is used.

    Returns:
        The file; None if there is no place to write to.
    """
    text = "".join(
        [
            f"edgepress {__version__}, Python {platform.python_version()} on {platform.platform()}\n",
            f"{shlex.join(sys.argv)}\n\n",
            *traceback.format_exception(error),
        ]
    )
    with suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        folder = get_traceback_folder()
        folder.mkdir(parents=True, exist_ok=True)
        file = _write(text, folder)
        for old in sorted(folder.glob(f"{PREFIX}*{SUFFIX}"), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]:
            old.unlink(missing_ok=True)
        return file
    with suppress(OSError):
        return _write(text, Path(tempfile.gettempdir()))
    return None


def _write(text: str, folder: Path) -> Path:
    prefix = f"{PREFIX}{datetime.now().strftime('%Y%m%d-%H%M%S')}-"
    descriptor, name = tempfile.mkstemp(SUFFIX, prefix, folder)  # a new file, whatever else is saved in this second
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
    return Path(name)
