"""A folder that changes while it is read is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.snapshot import FolderSnapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "vae").mkdir(parents=True)
    (tmp_path / "model" / "vae" / "weights").write_bytes(b"1234")
    return tmp_path / "model"


def replace_folder(folder: Path) -> None:
    """Puts an equal folder in the place of one, as publishing does."""
    (folder.parent / "new" / "vae").mkdir(parents=True)
    status = (folder / "vae" / "weights").stat()
    (folder.parent / "new" / "vae" / "weights").write_bytes(b"4321")
    os.utime(folder.parent / "new" / "vae" / "weights", ns=(status.st_atime_ns, status.st_mtime_ns))
    folder.rename(folder.parent / "old")
    (folder.parent / "new").rename(folder)


def test_a_folder_that_is_read_and_written_beside_is_unchanged(folder: Path) -> None:
    snapshot = FolderSnapshot.take(folder)
    (folder / "vae" / "weights").read_bytes()
    (folder.parent / "results").touch()
    (folder / ".hidden").touch()
    snapshot.require_unchanged()


@pytest.mark.parametrize("kind", ["written", "added", "removed", "replaced"])
def test_a_change_is_noticed(kind: str, folder: Path) -> None:
    snapshot = FolderSnapshot.take(folder)
    file = folder / "vae" / ("more" if kind == "added" else "weights")
    if kind in ("written", "added"):
        file.write_bytes(b"12345")
    elif kind == "removed":
        file.unlink()
    else:
        replace_folder(folder)
    with pytest.raises(UserError) as raised:
        snapshot.require_unchanged()
    assert str(raised.value) == f"{file} was changed while this command was reading {folder}. Run it again."
