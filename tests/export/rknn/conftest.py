"""Fixtures of the RKNN export."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.previous_export import write_previous_export


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """An artifact with an older export."""
    return write_previous_export(tmp_path / "out")
