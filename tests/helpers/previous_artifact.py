"""The artifact that tests/test_previous_release.py describes."""

from __future__ import annotations

import tarfile
from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "artifact-0b5298e.tar.xz"


def extract_previous_artifact(folder: Path) -> Path:
    """Extracts the artifact into a folder and returns its own."""
    with tarfile.open(FILE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 of Debian 12 has none
        archive.extractall(folder)
    return folder / "artifact"
