"""An artifact with an older RKNN export, which a failed export must leave unchanged."""

from __future__ import annotations

from pathlib import Path

CONTENT = "unchanged"
CONFIG = '{"schema_version": 1, "family": "f", "graphs": {}, "host": {}}'  # as far as edgepress knows its own by it


def write_previous_export(artifact: Path) -> Path:
    (artifact / "rknn").mkdir(parents=True)
    (artifact / "rknn" / "older").write_text(CONTENT)
    (artifact / "rknn" / "pipeline.json").write_text(CONFIG)
    return artifact


def check_untouched(artifact: Path) -> None:
    assert (artifact / "rknn" / "older").read_text() == CONTENT
    assert not (artifact / ".work").exists()
