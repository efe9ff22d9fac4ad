"""Notices that a folder is changed or replaced while a command reads it, without reading it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from .files import list_files

FileState = tuple[int, int, int]
"""Number of the file in its file system, bytes, and time of modification in nanoseconds."""


@dataclass(frozen=True)
class FolderSnapshot:
    """The state of the files of a folder at one moment.

    Attributes:
        folder: The folder.
        states: The state of each file by its path relative to the folder; hidden files are left out.
    """

    folder: Path
    states: dict[str, FileState]

    @classmethod
    def take(cls, folder: Path) -> FolderSnapshot:
        """Looks at all files of a folder; links are followed."""
        return cls(folder, _read_states(folder))

    def require_unchanged(self) -> None:
        """Checks that the folder has the same files as then.

        Raises:
            UserError: A file was added, removed, written or replaced.
        """
        changed = sorted({path for path, _ in self.states.items() ^ _read_states(self.folder).items()})
        if changed:
            raise UserError(
                f"{self.folder / changed[0]} was changed while this command was reading {self.folder}. Run it again."
            )


def read_file_state(file: Path) -> FileState | None:
    """The state of a file; None if there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_states(folder: Path) -> dict[str, FileState]:
    states = ((name, read_file_state(folder / name)) for name in list_files(folder))
    return {name: state for name, state in states if state is not None}
