"""The reference in docs/recipes.md is what the schema says."""

from __future__ import annotations

import re

from edgepress.recipes.markdown import PAGE, update_page
from edgepress.recipes.reference import describe_schema


def test_the_page_is_current() -> None:
    text = PAGE.read_text("utf-8")
    assert text == update_page(text), "run make docs-reference"


def test_every_key_has_a_row_with_a_description() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    explained = {key for key, *_, description in rows if description.strip()}
    assert {entry.key.rpartition(".")[2] for entry in describe_schema() if entry.type != "section"} <= explained
