"""Every way to tamper with every file of a small artifact, which `verify` must find."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.published_artifact import write_published_artifact

from edgepress.benchmarks.reliability import tampering
from edgepress.benchmarks.reliability.tampering import OUTSIDE, is_detected, list_cases
from edgepress.serving.board_kit import write_board_kit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tampering") / "artifact"
    (folder / "onnx").mkdir(parents=True)
    folder.with_name(OUTSIDE).write_text("of other content")
    artifact = write_published_artifact(folder).path
    write_board_kit(artifact)
    return artifact


def read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", [*tampering.EVERY_FILE, *tampering.WITH_SCHEMA, *tampering.WITH_FILES])
def test_everything_is_detected_and_put_back(artifact: Path, change: str) -> None:
    before = read_files(artifact)
    cases = [(name, tamper) for name, title, tamper in list_cases(artifact) if title == change]
    assert cases
    assert [name for name, tamper in cases if not is_detected(artifact, name, tamper)] == []
    assert read_files(artifact) == before


def test_what_changes_nothing_is_not_found(artifact: Path) -> None:
    assert not is_detected(artifact, "manifest.json", Path.touch)
