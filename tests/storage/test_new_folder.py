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


@pytest.mark.parametrize("name", ["model_index.json", "onnx/pipeline.json"])
def test_it_is_in_no_pipeline_and_no_artifact(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"schema_version": 1, "family": "f", "graphs": {}, "host": {}}')
    with pytest.raises(UserError, match="it does not belong there"), new_folder(tmp_path / "deep" / "new"):
        pass
    assert not (tmp_path / "deep").exists()


def test_large_files_are_links_and_small_ones_copies(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2**20))
    (tmp_path / "small").write_bytes(b"x")
    for name in ("large", "small"):
        (tmp_path / f"link-{name}").symlink_to(name)
        link_or_copy(tmp_path / f"link-{name}", tmp_path / f"new-{name}")
        assert not (tmp_path / f"new-{name}").is_symlink()
        assert (tmp_path / f"new-{name}").samefile(tmp_path / name) == (name == "large")
        assert (tmp_path / f"new-{name}").read_bytes() == (tmp_path / name).read_bytes()
