"""Fixtures of the RKNN export."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import previous_export


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """An artifact with an older export."""
    return previous_export.write(tmp_path / "out")
