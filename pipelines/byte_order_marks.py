"""Pipelines whose JSON files begin with a byte order mark, as some editors write it.

edgepress reads them; diffusers, transformers and tokenizers do not.
"""

from __future__ import annotations

import codecs
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hide_byte_order_marks(folder: Path) -> Iterator[Path]:
    """Yields a folder with the files of another one, as libraries can read them.

    Args:
        folder: A pipeline or a component.

    Yields:
        The folder itself, or, if files in it begin with a mark, a temporary one with copies of these files without it
        and with links to all others.
    """
    marked = [file for file in folder.rglob("*.json") if file.is_file() and _has_mark(file)]
    if not marked:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgepress-") as name:
        view = Path(name) / folder.name
        shutil.copytree(folder, view, copy_function=_link, ignore_dangling_symlinks=True)
        for file in marked:
            copy = view / file.relative_to(folder)
            copy.unlink()
            copy_without_mark(file, copy)
        yield view


def copy_without_mark(source: Path, target: Path) -> None:
    """Copies a file; of JSON, a byte order mark at its beginning is left out."""
    if source.suffix == ".json" and _has_mark(source):
        target.write_bytes(source.read_bytes().removeprefix(codecs.BOM_UTF8))
    else:
        shutil.copyfile(source, target)


def _has_mark(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
