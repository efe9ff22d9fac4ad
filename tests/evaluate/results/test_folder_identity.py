from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate.results.folder_identity import hash_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline" / "vae").mkdir(parents=True)
    (tmp_path / "pipeline" / "vae" / "weights").write_bytes(b"abc")
    (tmp_path / "pipeline" / "index").write_bytes(b"{}")
    return tmp_path / "pipeline"


def test_size_and_number_of_files(folder: Path) -> None:
    identity = hash_folder(folder)
    assert (identity.files, identity.bytes) == (2, 5)


def test_the_digest_covers_content_and_names_but_not_the_location(folder: Path) -> None:
    first = hash_folder(folder).sha256
    moved = folder.rename(folder.with_name("two"))
    assert hash_folder(moved).sha256 == first
    (moved / "index").rename(moved / "Index")
    renamed = hash_folder(moved).sha256
    (moved / "vae" / "weights").write_bytes(b"abd")
    assert len({first, renamed, hash_folder(moved).sha256}) == 3


def test_hidden_files_are_ignored(folder: Path) -> None:
    first = hash_folder(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "date").write_text("today")
    (folder / ".DS_Store").write_text("x")
    assert hash_folder(folder) == first


def test_links_are_followed(folder: Path) -> None:
    first = hash_folder(folder).sha256
    (folder / "vae").rename(folder.with_name("elsewhere"))
    (folder / "vae").symlink_to(folder.with_name("elsewhere"))
    assert hash_folder(folder).sha256 == first


def test_progress_ends_at_the_total(folder: Path) -> None:
    updates: list[tuple[str, int, int]] = []
    hash_folder(folder, lambda *state: updates.append(state), "reading")
    assert updates == [("reading", 0, 5), ("reading", 2, 5), ("reading", 5, 5)]
