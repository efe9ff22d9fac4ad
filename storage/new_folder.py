"""Writes a folder that is new: it appears whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..common.errors import UserError
from .preflight import check_output, require_outside, require_possible_path
from .recognition import is_artifact

MIN_LINKED_BYTES = 2**20


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to write to, which gets the given name at the end and is removed after an error.

    Args:
        path: The folder; it must not exist, or be empty.

    Raises:
        UserError: There is something in its place, or nothing can be written there.
    """
    check_new_folder(path)
    created = [folder for folder in path.parents if not folder.exists()]
    staged = path.with_name(f".edgepress-{uuid4().hex}")
    try:
        staged.mkdir(parents=True)
        yield staged
        if path.exists():
            path.rmdir()
        staged.rename(path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        with suppress(OSError):  # the first that is not empty ends it
            for folder in created:
                folder.rmdir()


def check_new_folder(path: Path) -> None:
    """Checks that a folder can be written as a new one.

    Raises:
        UserError: There is something in its place, or nothing can be written there.
    """
    require_possible_path(path)
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path} is not a folder. Choose another --output.")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} is not empty. Choose another --output.")
    require_outside(path, path.resolve().parents, is_artifact)
    check_output(path)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a large file a link of the same content where the disk allows it, and else a copy.

    Small files are copies, since they may be edited, and what is written to a link is written to both.
    """
    if source.stat().st_size >= MIN_LINKED_BYTES:
        with suppress(OSError):  # another disk, or a file system without links
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)
