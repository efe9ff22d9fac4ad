"""Says of a pipeline folder which one it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ...common.progress import Progress, no_progress
from ...storage.manifest import FileRecord, hash_files


class FolderIdentity(BaseModel):
    """A pipeline folder; `sha256` covers the path, size and content of every file that is not hidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    files: int
    bytes: int


def hash_folder(folder: Path, progress: Progress = no_progress, stage: str = "reading weights") -> FolderIdentity:
    """Reads the whole folder; links are followed."""
    files = hash_files(folder, progress, stage)
    return FolderIdentity(
        path=str(folder),
        sha256=digest_files(files),
        files=len(files),
        bytes=sum(file.bytes for file in files),
    )


def digest_files(files: Sequence[FileRecord]) -> str:
    """One SHA-256 for the paths, sizes and contents of all files."""
    content = json.dumps([(file.path, file.bytes, file.sha256) for file in files])
    return hashlib.sha256(content.encode()).hexdigest()
