"""The page names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import edgepress

ROOT = Path(edgepress.__file__).parent


def test_every_test_that_the_page_names_exists() -> None:
    names = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "reliability.md").read_text("utf-8"))
    assert len(names) > 5
    assert [name for name in names if not (ROOT / name).is_file()] == []
