"""Images that are kept: by number and age."""

from __future__ import annotations

import os
from pathlib import Path
from time import time

from edgepress.serving.images import EncodedImage, ImageFacts
from edgepress.serving.output_store import OutputStore

FACTS = ImageFacts(seed=1, steps=2, width=16, height=16, format="png", seconds=0.5, warnings=[])


def test_old_images_are_removed(tmp_path: Path) -> None:
    store = OutputStore(tmp_path, keep_images=10, keep_hours=1)
    young = store.add(EncodedImage(b"young", FACTS))
    old = f"{int((time() - 3700) * 1000):013d}-{'0' * 32}.png"
    (tmp_path / old).write_bytes(b"old")
    store.prune()
    assert [image.name for image in store.list_all()] == [young]
    assert not (tmp_path / old).exists()


def test_warnings_which_quote_the_prompt_are_not_stored(tmp_path: Path) -> None:
    store = OutputStore(tmp_path, keep_images=10, keep_hours=1)
    name = store.add(EncodedImage(b"x", FACTS.model_copy(update={"warnings": ["'secret' is abstract."]})))
    assert [(image.name, image.warnings) for image in store.list_all()] == [(name, [])]
    assert b"secret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_none_are_kept_if_none_may_be(tmp_path: Path) -> None:
    assert OutputStore(tmp_path, keep_images=0, keep_hours=1).add(EncodedImage(b"", FACTS)) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_power_failure_left_is_not_listed(tmp_path: Path) -> None:
    store = OutputStore(tmp_path, keep_images=10, keep_hours=1)
    name = store.add(EncodedImage(b"x", FACTS))
    (tmp_path / f"{name}.json").write_bytes(b"")
    (tmp_path / "half.new").write_bytes(b"x")
    assert OutputStore(tmp_path, keep_images=10, keep_hours=1).list_all() == []
    assert not (tmp_path / "half.new").exists()


def test_a_name_leads_to_no_other_file(tmp_path: Path) -> None:
    store = OutputStore(tmp_path / "outputs", keep_images=10, keep_hours=1)
    secret = tmp_path / f"{'1' * 13}-{'0' * 32}.png"
    secret.write_bytes(b"")
    assert store.find(f"..{os.sep}{secret.name}") is None
    assert not store.remove(f"../{secret.name}")
