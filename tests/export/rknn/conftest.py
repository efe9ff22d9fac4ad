"""What tests of exporting to an NPU start from."""

from __future__ import annotations

from pathlib import Path

import older_export
import pytest


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """An artifact that holds an older export."""
    return older_export.write(tmp_path / "out")
