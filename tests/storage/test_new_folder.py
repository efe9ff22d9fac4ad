"""A new folder appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.new_folder import link_or_copy, new_folder


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        (folder / "file").touch()
    assert (tmp_path / "file").exists()


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "file").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "full"])
def test_what_is_there_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="Choose another --output"), new_folder(tmp_path / name):
        pass


def test_files_are_links_where_the_disk_allows_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    link_or_copy(tmp_path / "link", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    assert not (tmp_path / "b").is_symlink()
