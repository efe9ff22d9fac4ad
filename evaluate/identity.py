"""Says of a pipeline folder which one it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..artifact import File, describe
from ..progress import Progress, silent


class FolderIdentity(BaseModel):
    """A pipeline folder; `sha256` covers the path, size and content of every file that is not hidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    files: int
    bytes: int


def identify(folder: Path, progress: Progress = silent, stage: str = "reading weights") -> FolderIdentity:
    """Reads the whole folder; links are followed."""
    files = describe(folder, progress, stage)
    return FolderIdentity(
        path=str(folder),
        sha256=digest_of(files),
        files=len(files),
        bytes=sum(file.bytes for file in files),
    )


def digest_of(files: Sequence[File]) -> str:
    """One SHA-256 for the paths, sizes and contents of all files."""
    content = json.dumps([(file.path, file.bytes, file.sha256) for file in files])
    return hashlib.sha256(content.encode()).hexdigest()
