"""Identifies a folder by a digest of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from ...common.progress import Progress, no_progress
from ...storage.files import digest_files, hash_files
from ...storage.layout import ENGINES_FOLDER, is_export, is_pipeline
from ...storage.manifest import LoraRecord
from ...storage.provenance import require_recorded
from ...storage.weight_files import find_stray_files
from .locations import name_location


class FolderIdentity(BaseModel):
    """A folder and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        description="Path in the current folder, or else the repository on the Hub, or the last two names of the path."
    )
    sha256: str = Field(
        description="Digest of the path, size and content of every file that is not hidden, and of LoRAs that are "
        "merged into the weights."
    )
    files: NonNegativeInt = Field(description="Number of files.")
    bytes: NonNegativeInt = Field(description="Total size in bytes.")


def hash_folder(folder: Path, progress: Progress = no_progress, stage: str = "reading weights") -> FolderIdentity:
    """Reads all files of a folder but weights and engines that are never loaded; symbolic links are followed.

    What an artifact recorded of its files is compared with them.

    Args:
        folder: the folder.
        progress: called with `stage` and the number of bytes read and in total.
        stage: name of the stage for `progress`.

    Raises:
        UserError: A file is not as it was published.
    """
    skip = set(find_stray_files(folder)) if is_pipeline(folder) else set()
    if is_export(folder):
        skip.update((folder / ENGINES_FOLDER).rglob("*"))
    files = hash_files(folder, progress, stage, skip)
    require_recorded(folder, files)
    return FolderIdentity(
        path=name_location(folder),
        sha256=digest_files(files),
        files=len(files),
        bytes=sum(file.bytes for file in files),
    )


def add_loras(sha256: str, loras: Sequence[LoraRecord]) -> str:
    """The digest of a folder's files with LoRAs in its weights; without any, that of the files."""
    contents = [f"{lora.sha256} {lora.config_sha256} {lora.weight!r}" for lora in loras]
    return hashlib.sha256("\n".join([sha256, *contents]).encode()).hexdigest() if loras else sha256
