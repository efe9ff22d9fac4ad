from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate.results.folder_identity import hash_folder
from edgepress.prompts.prompt import Prompt, prompt_set_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one" / "vae").mkdir(parents=True)
    (tmp_path / "one" / "vae" / "weights").write_bytes(b"abc")
    (tmp_path / "one" / "index").write_bytes(b"{}")
    return tmp_path / "one"


def test_size_and_number_of_files(folder: Path) -> None:
    identity = hash_folder(folder)
    assert (identity.files, identity.bytes) == (2, 5)


def test_content_and_names_matter_and_the_place_does_not(folder: Path) -> None:
    first = hash_folder(folder).sha256
    moved = folder.rename(folder.with_name("two"))
    assert hash_folder(moved).sha256 == first
    (moved / "index").rename(moved / "Index")
    renamed = hash_folder(moved).sha256
    (moved / "vae" / "weights").write_bytes(b"abd")
    assert len({first, renamed, hash_folder(moved).sha256}) == 3


def test_hidden_files_are_no_part_of_a_pipeline(folder: Path) -> None:
    first = hash_folder(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "when").write_text("now")
    (folder / ".DS_Store").write_text("x")
    assert hash_folder(folder) == first


def test_links_count_as_what_they_lead_to(folder: Path) -> None:
    first = hash_folder(folder).sha256
    (folder / "vae").rename(folder.with_name("elsewhere"))
    (folder / "vae").symlink_to(folder.with_name("elsewhere"))
    assert hash_folder(folder).sha256 == first


def test_progress_ends_at_the_total(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    hash_folder(folder, lambda *state: seen.append(state), "reading")
    assert seen == [("reading", 0, 5), ("reading", 2, 5), ("reading", 5, 5)]


def test_prompt_sets_differ_by_content_and_order() -> None:
    one, two = (Prompt(id=name, prompt="x", language="en", lines=("X",)) for name in "ab")
    sets = [[one, two], [two, one], [one], [one, two.model_copy(update={"lines": ("Y",)})]]
    assert len({prompt_set_digest(prompts) for prompts in sets}) == 4
