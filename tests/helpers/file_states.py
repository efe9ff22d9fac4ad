"""Copies of folders by links, and what is in a folder, to see whether a command has changed it."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR

State = tuple[int, int, int]


def link(source: str | Path, target: str | Path) -> None:
    """Makes a file another name of the same content; of a pipe, a new one."""
    if Path(source).is_file():
        os.link(source, target)
    elif not os.path.lexists(target):
        os.mkfifo(target)


def list_files(folder: Path) -> dict[str, State]:
    """Kind, size and time of all that is in a folder, by path; of folders, the kind alone."""
    states = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {
        path: (state.st_mode, 0, 0) if S_ISDIR(state.st_mode) else (state.st_mode, state.st_size, state.st_mtime_ns)
        for path, state in states.items()
    }
