"""Files: hashing, listing, and JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..common.errors import UserError
from ..common.file_names import require_utf8
from ..common.progress import Progress, no_progress
from ..common.regular_files import require_regular
from .atomic_file import atomic_write
from .recovery import advise_recovery
from .relative_path import RelativePath
from .strict_json import parse_strict_json

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class FileRecord(BaseModel):
    """A file with its size and hash."""

    model_config = ConfigDict(frozen=True)

    path: RelativePath = Field(description="The path relative to a root folder, with forward slashes.")
    bytes: int = Field(ge=0, description="The size in bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 in hexadecimal.")


def record_file(folder: Path, name: str) -> FileRecord:
    """The record of a file in a folder, which is read."""
    file = folder / name
    return FileRecord(path=name, bytes=file.stat().st_size, sha256=hash_file(file))


def digest_files(files: Sequence[FileRecord]) -> str:
    """One SHA-256 for the paths, sizes and contents of files, in hexadecimal."""
    content = json.dumps([(file.path, file.bytes, file.sha256) for file in files])
    return hashlib.sha256(content.encode()).hexdigest()


def hash_file(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal. The file is read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(
    folder: Path,
    progress: Progress = no_progress,
    stage: str = "reading weights",
    skip: Collection[Path] = (),
) -> list[FileRecord]:
    """Hashes every file below a folder.

    Links are followed, as the cache of the Hugging Face Hub needs; hidden files and folders are left out, and so are
    links to nothing.

    Args:
        folder: The folder to search.
        progress: Is called with bytes.
        stage: The name of the stage that progress is reported under.
        skip: Files to leave out.

    Returns:
        The files, sorted by path.

    Raises:
        UserError: The folder has something like a pipe, which cannot be read to its end.
    """
    paths = {name: folder / name for name in list_files(folder)}
    paths = {name: path for name, path in paths.items() if path.exists() and path not in skip}
    special = next((path for path in paths.values() if not path.is_file()), None)
    if special:
        raise UserError(f"{special} is no file but a pipe, socket or device. Remove it from the folder.")
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    records: list[FileRecord] = []
    for name, size in sizes.items():
        progress(stage, sum(record.bytes for record in records), sum(sizes.values()))
        records.append(FileRecord(path=name, bytes=size, sha256=hash_file(folder / name)))
    progress(stage, sum(sizes.values()), sum(sizes.values()))
    return records


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder; 0 if there is no such folder."""
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files)


def list_files(folder: Path) -> list[str]:
    """The files below a folder that are not hidden: relative paths with forward slashes, sorted.

    Links are followed, but for those to a folder that they are in.

    Raises:
        UserError: A name is not UTF-8, or one is a pipe, a socket or a device, whose end would never be read.
    """
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _contains_itself(Path(parent) / name, folder)
        ]
        paths += [(Path(parent) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    for path in paths:
        require_utf8(str(folder / path))
        require_regular(folder / path, "Remove it.")
    return sorted(paths)


def _contains_itself(path: Path, root: Path) -> bool:
    """Whether a folder below `root` is, by a link, one that it is in itself, so that a search would never end."""
    parents = path.parents[: len(path.relative_to(root).parts)]
    real = path.resolve()
    return any(parent.resolve().is_relative_to(real) for parent in parents)


def read_json_object(path: Path, *, allow_infinity: bool = False) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        path: The file.
        allow_infinity: Whether numbers may be infinite, as diffusers stores some defaults of its schedulers.

    Raises:
        UserError: The file cannot be read, is a git-lfs pointer, or holds something else, a key twice or a number that
            is not finite.
    """
    require_regular(path, advise_recovery)
    try:
        text = path.read_text("utf-8-sig")  # some editors begin files with a byte order mark
        require_no_lfs_pointer(path, text.encode())
        return parse_strict_json(text, allow_infinity)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else reason
        raise UserError(f"{path} cannot be read ({reason}). {advise_recovery(path)}") from error


def require_no_lfs_pointer(path: Path, beginning: bytes) -> None:
    """Checks that a file is not a pointer, which git leaves in place of a large file that was not downloaded.

    Args:
        path: The file.
        beginning: Its first bytes.

    Raises:
        UserError: It is a pointer.
    """
    if beginning.startswith(LFS_POINTER):
        raise UserError(f"{path} is a git-lfs pointer, not the file itself. Run 'git lfs pull' in {path.parent}.")


def write_json(content: Any, path: Path) -> None:
    """Writes a JSON file in one piece.

    Raises:
        ValueError: The content has a number that JSON cannot express, such as NaN.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    encoded = text.encode()  # before there is a file

    def write(temporary: Path) -> None:
        temporary.write_bytes(encoded)

    atomic_write(path, write)
