"""Recipes in files, and the messages that reject them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.recipes.loader import load_recipe


def write_recipe(folder: Path, text: str) -> str:
    """Writes `mine.yaml` into a folder; returns its path."""
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def load_error(folder: Path, text: str) -> str:
    """The one sentence that rejects a recipe."""
    path = write_recipe(folder, text)
    with pytest.raises(UserError) as raised:
        load_recipe(path)
    message = str(raised.value)
    assert path in message
    assert "\n" not in message
    return message
