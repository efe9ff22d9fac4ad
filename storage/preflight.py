"""Checks that an artifact can be written, before any work: permissions, the lock, and room on the disk.

Nothing is created. The answer can become outdated while a command runs; what is written is still checked then.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.file_lock import lock_file
from .layout import (
    CHECKSUMS_NAME,
    ENGINES_FOLDER,
    WORK,
    Artifact,
    is_export,
    is_of_another_program,
    is_pipeline,
    is_written_by_edgepress,
)
from .recognition import PathKind, is_artifact, recognize_path, reject_path


def require_possible_path(path: Path) -> None:
    """Checks that there can be something at a path where results are written, so that it can be looked at.

    Raises:
        UserError: A name in it is longer than the file system allows, or it leads through a link to itself.
    """
    whole = path.absolute() / WORK
    existing = _find_existing(path)
    for place in (whole, *(existing / name for name in whole.relative_to(existing).parts)):
        try:
            os.lstat(place)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UserError(f"{path} is too long for the file system. Choose a shorter output folder.") from error
            if error.errno == errno.ELOOP:
                raise UserError(f"{path} leads through a link to itself. Choose another output folder.") from error


def is_within(output: Path, folder: Path) -> bool:
    """Whether a path is a folder or inside of it, wherever links lead.

    Raises:
        UserError: There can be nothing at one of the paths.
    """
    for path in (output, folder):
        require_possible_path(path)
    return output.resolve().is_relative_to(folder.resolve())


def require_outside(output: Path, places: Iterable[Path], is_whole: Callable[[Path], bool] | None = None) -> None:
    """Checks that an output is in no folder that is published, and replaced, as a whole.

    Args:
        output: The output.
        places: The folders that it is in.
        is_whole: What else than pipelines and exports are such folders.

    Raises:
        UserError: One of them is.
    """
    kinds = {"a pipeline": is_pipeline, "an export": is_export} | ({"an artifact": is_whole} if is_whole else {})
    for place in places:
        kind = next((kind for kind, is_kind in kinds.items() if is_kind(place)), None)
        if kind is not None:
            raise UserError(
                f"{output} is in {place}, which is {kind}: it does not belong there. Choose another output folder."
            )


def check_output(artifact: Path, bytes_needed: int = 0) -> None:
    """Checks that an artifact folder can be written.

    Args:
        artifact: The folder; it need not exist.
        bytes_needed: What will be written at least.

    Raises:
        UserError: A part of the path is a file, it is a folder of an artifact or inside of one, or read-only, another
            process is using it, or the disk has less room.
    """
    require_possible_path(artifact)
    if recognize_path(artifact) in (PathKind.MODEL, PathKind.EXPORT):
        raise reject_path(artifact, "Choose another output folder", is_artifact)
    require_outside(artifact, artifact.resolve().parents)
    work = Artifact(artifact).work
    for path in (artifact, work):
        check_writable_folder(path)
    _check_lock(artifact, work / "lock")
    check_disk_space(artifact, bytes_needed)


def check_results_folder(folder: Path, what: str = "output folder") -> None:
    """Checks that a folder of results can be written, and is in no folder that is published as a whole.

    There, results would be lost when the folder is replaced, and it would not be what was published any more.

    Args:
        folder: The folder; it need not exist.
        what: What the user chooses another of: an option, or what it names.

    Raises:
        UserError: It is in a pipeline or an export, a part of the path is a file, or it is read-only.
    """
    require_possible_path(folder)
    real = folder.resolve()
    require_outside(folder, (real, *real.parents))
    check_writable_folder(folder, what)


def check_replaceable(path: Path, descriptions: Sequence[Path]) -> None:
    """Checks that edgepress wrote a folder or file that is going to be replaced.

    Args:
        path: A folder or file of an artifact; it need not exist.
        descriptions: The files that edgepress writes with it: manifest.json or pipeline.json. One of them is enough.

    Raises:
        UserError: There is something in its place, and none of these files, or only such of another program; or a
            file was added to a folder that is listed in SHA256SUMS.
    """
    is_free = not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))
    if is_free:
        return
    if any(map(is_written_by_edgepress, descriptions)):
        _require_no_added_files(path, descriptions[0])
        return
    raise UserError(
        f"{path} was not made by edgepress{_explain(path, descriptions[0])}. "
        "Choose another output folder, or move it to another place."
    )


def _require_no_added_files(folder: Path, description: Path) -> None:
    """Raises UserError where a published folder has a file that was not published, which would be lost."""
    from .checksums import read_checksums
    from .integrity import find_added_files

    try:
        listed = read_checksums(description.parent) if folder.is_dir() else None
    except UserError:  # it is replaced together with the folder
        return
    if not listed:
        return
    prefix = f"{folder.name}/" if description.parent != folder else ""
    published = {path.removeprefix(prefix) for path in listed if path.startswith(prefix)}
    if prefix and not published:
        return
    added = next(find_added_files(folder, published | {CHECKSUMS_NAME, description.name}, (ENGINES_FOLDER,)), None)
    if added is not None:
        raise UserError(
            f"{folder / added.path} was not made by edgepress, and {folder} will be replaced. Move it to another place."
        )


def _explain(path: Path, description: Path) -> str:
    """How that is known; empty if the file shows it itself."""
    if path == description:
        return ""
    author = "another program's" if is_of_another_program(description) else "damaged"
    return f", because {description} is {author if description.exists() else 'missing'}"


def check_disk_space(folder: Path, bytes_needed: int) -> None:
    """Checks that the disk of a folder, which need not exist, has room.

    Raises:
        UserError: It has less than `bytes_needed`.
    """
    disk = shutil.disk_usage(_find_existing(folder))
    if disk.free < bytes_needed and disk.total > 0:  # a virtual file system has no size; writing to it tells more
        raise UserError(
            f"{folder} needs at least {_format_size(bytes_needed)}, but its disk has {_format_size(disk.free)} free. "
            "Free some space, or choose a folder on another disk."
        )


def _format_size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def is_writable(folder: Path) -> bool:
    """Whether a folder can be written to, or created."""
    try:
        check_writable_folder(folder)
    except UserError:
        return False
    return True


def check_writable_folder(path: Path, what: str = "output folder") -> None:
    """Checks that a folder can be created, or written to if it exists.

    Args:
        path: The folder.
        what: What the user chooses another of: an option, or what it names.

    Raises:
        UserError: A part of its path is a file, or the nearest folder that exists is read-only.
    """
    require_possible_path(path)
    existing = _find_existing(path)
    if not existing.is_dir():
        raise UserError(f"{existing} is not a folder, so {path} cannot be created. Choose another {what}.")
    is_virtual = shutil.disk_usage(existing).total == 0  # such as /proc, whose permissions say nothing
    if not os.access(existing, os.W_OK | os.X_OK) or (is_virtual and not _can_create(existing)):
        state = "is" if existing == path.absolute() else f"cannot be created, since {existing} is"
        raise UserError(f"{path} {state} read-only. Change its permissions, or choose another {what}.")


def _can_create(folder: Path) -> bool:
    """Whether a folder can be created in another one; it is removed at once."""
    try:
        trial = tempfile.mkdtemp(prefix=".edgepress-", dir=folder)
    except OSError:
        return False
    Path(trial).rmdir()
    return True


def _find_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _check_lock(artifact: Path, lock: Path) -> None:
    """Tries the lock of an artifact, if there is one."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{artifact} cannot be written: {error.strerror}. Choose another output folder.") from error
    try:
        if not lock_file(descriptor):
            raise UserError(
                f"Another edgepress process is using {artifact}. Wait for it, or choose another output folder."
            )
    finally:
        os.close(descriptor)
