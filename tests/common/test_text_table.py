"""Tables of plain text."""

from __future__ import annotations

from edgepress.common.text_table import align_rows


def test_texts_are_aligned_on_the_left_and_numbers_on_the_right() -> None:
    rows = [("name", "MB", "note"), ("vae", "7.50", ""), ("text", "10.25", "int8")]
    assert align_rows(rows, {1}) == ["  name     MB  note", "  vae    7.50", "  text  10.25  int8"]
