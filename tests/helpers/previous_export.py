"""An artifact with an older export for an NPU, which a refused one must leave as it was."""

from __future__ import annotations

from pathlib import Path

WORDS = "as it was"


def write(artifact: Path) -> Path:
    (artifact / "rknn").mkdir(parents=True)
    (artifact / "rknn" / "older").write_text(WORDS)
    return artifact


def check_untouched(artifact: Path) -> None:
    assert (artifact / "rknn" / "older").read_text() == WORDS
    assert not (artifact / ".work" / "export-rknn").exists()
