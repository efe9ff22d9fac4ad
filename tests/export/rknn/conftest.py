"""Fixtures of the RKNN export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.previous_export import write_previous_export

from edgepress.runtime.rknn.toolkit import Toolkit


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """An artifact with an older export."""
    return write_previous_export(tmp_path / "out")


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolkit]:
    """A toolkit for all tests of a file, since its worker takes seconds to start. Its folder's name has a space."""
    with Toolkit(60, tmp_path_factory.mktemp("toolkit") / "tool kit") as toolkit:
        yield toolkit
