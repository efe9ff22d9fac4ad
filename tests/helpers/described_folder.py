"""The SHA256SUMS of a manifest.json or pipeline.json that a test wrote itself."""

from __future__ import annotations

from pathlib import Path

from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import record_file
from edgepress.storage.manifest import Manifest, write_manifest


def write_checksum_of(file: Path) -> None:
    """Writes a SHA256SUMS beside a file, which lists that file only."""
    write_checksums([record_file(file.parent, file.name)], file.parent)


def write_listed_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes a manifest, and a SHA256SUMS that lists it."""
    write_manifest(manifest, folder)
    write_checksum_of(folder / "manifest.json")
