"""Compares the files of a folder with what was recorded when it was published.

Presence, sizes, headers and links are checked whenever a folder is loaded, which takes a moment at any size. Hashes are
checked where a command asks for it, since that reads every byte.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from .files import FileRecord
from .safetensors_header import read_tensor_headers

if TYPE_CHECKING:
    from .hash_memory import HashMemory

PROGRESS_STAGE = "checking files"


class FileStatus(StrEnum):
    """What is wrong with a file.

    Attributes:
        MISSING: It is not there.
        TRUNCATED: It has another size.
        CORRUPT: Its header does not describe its content.
        CHANGED: Its SHA-256 is another one.
        LINK: It is a link out of the folder, and what it leads to is not known to be what was published.
        ADDED: It was not published.
        STALE: It was made from something that was replaced since.
        DIFFERENT: A graph gives other outputs than torch did when it was exported.
    """

    MISSING = "missing"
    TRUNCATED = "wrong size"
    CORRUPT = "corrupt"
    CHANGED = "changed"
    LINK = "link"
    ADDED = "added"
    STALE = "stale"
    DIFFERENT = "different outputs"


@dataclass(frozen=True)
class FileProblem:
    """A file that is not as it was published.

    Attributes:
        path: Its path relative to the folder, with forward slashes.
        status: What is wrong.
        reason: The same in words, which complete the sentence "FILE ...".
    """

    path: str
    status: FileStatus
    reason: str


def find_problems(
    folder: Path, files: Sequence[FileRecord], hashes: HashMemory | None = None, progress: Progress = no_progress
) -> Iterator[FileProblem]:
    """Compares files with their records.

    A link may lead out of the folder, as in the cache of the Hugging Face Hub, if what it leads to has the recorded
    SHA-256; that is always checked.

    Args:
        folder: The folder.
        files: What was published.
        hashes: Computes the hashes to compare; None to compare sizes and headers only.
        progress: Called with bytes where hashes are compared.

    Yields:
        The first problem of each file that has one.
    """
    root, total, done = os.path.realpath(folder), sum(file.bytes for file in files), 0
    for record in files:
        if hashes is not None and total:
            progress(PROGRESS_STAGE, done, total)
        done += record.bytes
        problem = _find_cheap_problem(folder, record)
        if problem is None and _leaves(root, folder / record.path):
            problem = _check_link(folder, record, hashes)
        elif problem is None and hashes is not None and hashes.hash_file(folder / record.path) != record.sha256:
            problem = FileProblem(record.path, FileStatus.CHANGED, "was changed: it has another SHA-256")
        if problem is not None:
            yield problem
    if hashes is not None and total:
        progress(PROGRESS_STAGE, total, total)


def find_added_files(folder: Path, published: Collection[str], ignored: Collection[str] = ()) -> Iterator[FileProblem]:
    """Finds files that were not published. Hidden ones are left out, since nothing reads them.

    Args:
        folder: The folder.
        published: Paths of the files that belong there, relative to it.
        ignored: Names of its folders that are not searched.
    """
    for parent, folders, names in os.walk(folder):
        here = Path(parent).relative_to(folder)
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in linked and (here / name).as_posix() not in ignored
        ]
        for name in sorted([*names, *linked]):
            path = (here / name).as_posix()
            is_parent = any(file.startswith(f"{path}/") for file in published)
            if not name.startswith(".") and path not in published and not is_parent:
                yield FileProblem(path, FileStatus.ADDED, "was not published with this folder")


def require_intact(
    folder: Path,
    files: Sequence[FileRecord],
    remedy: str,
    hashes: HashMemory | None = None,
    progress: Progress = no_progress,
) -> None:
    """Checks files as `find_problems` does.

    Args:
        folder: The folder.
        files: What was published.
        remedy: A sentence that says what to do.
        hashes: Computes the hashes to compare; None to compare sizes and headers only.
        progress: Called with bytes where hashes are compared.

    Raises:
        UserError: A file is not as it was published.
    """
    for problem in find_problems(folder, files, hashes, progress):
        raise UserError(f"{folder / problem.path} {problem.reason}. {remedy}")


def require_inside(folder: Path, file: Path) -> None:
    """Checks a file of which no hash was recorded.

    Raises:
        UserError: It is a link that leads out of the folder.
    """
    if is_link_out(folder, file):
        raise UserError(
            f"{file} is a link to {os.path.realpath(file)}, and the export holds no SHA-256 to check that file with. "
            "Put the file itself in its place, as 'cp -rL' does."
        )


def is_link_out(folder: Path, file: Path) -> bool:
    """Whether a file is reached through a link that leads out of a folder."""
    return _leaves(os.path.realpath(folder), file)


def _find_cheap_problem(folder: Path, record: FileRecord) -> FileProblem | None:
    """Finds what can be seen without reading a file whole."""
    file = folder / record.path
    try:
        status = file.stat()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        if file.is_symlink():
            reason = f"is a link to {file.readlink()}, which cannot be read"
        return FileProblem(record.path, FileStatus.MISSING, reason)
    if not stat.S_ISREG(status.st_mode):
        return FileProblem(record.path, FileStatus.MISSING, "is not a file")
    if status.st_size != record.bytes:
        reason = f"has {status.st_size:,} bytes instead of {record.bytes:,}"
        return FileProblem(record.path, FileStatus.TRUNCATED, reason)
    if file.suffix == ".safetensors":
        try:
            read_tensor_headers(file)
        except UserError as error:
            return FileProblem(record.path, FileStatus.CORRUPT, f"has a corrupt header: {error}".removesuffix("."))
    return None


def _check_link(folder: Path, record: FileRecord, hashes: HashMemory | None) -> FileProblem | None:
    file = folder / record.path
    if hashes is None:
        from .hash_memory import HashMemory

        with HashMemory() as memory:
            sha256 = memory.hash_file(file)
    else:
        sha256 = hashes.hash_file(file)
    if sha256 == record.sha256:
        return None
    reason = f"is a link to {os.path.realpath(file)}, whose SHA-256 is not that of the file that was published"
    return FileProblem(record.path, FileStatus.LINK, reason)


def _leaves(root: str, file: Path) -> bool:
    """Whether a file's real path is not below a real folder."""
    return not os.path.realpath(file).startswith(root.rstrip(os.sep) + os.sep)
