"""The artifact that tests/test_previous_release.py describes."""

from __future__ import annotations

import tarfile
from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "artifact-0b5298e.tar.xz"


def extract_previous_artifact(folder: Path) -> Path:
    """Extracts the artifact into a folder and returns its own."""
    with tarfile.open(FILE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "artifact"
