"""An artifact of which something is missing is neither described, compared nor packed for a board."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.published_artifact import write_published_artifact

import edgepress
from edgepress.common.errors import UserError
from edgepress.serving.board_kit import write_board_kit


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published_artifact(tmp_path_factory.mktemp("sound") / "artifact").path


@pytest.mark.parametrize("folder", ["model", "onnx"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_missing_and_shortened_files_are_named(
    sound: Path, tmp_path: Path, folder: str, damage: Callable[[Path], object]
) -> None:
    artifact = Path(shutil.copytree(sound, tmp_path / "artifact"))
    file = max((artifact / folder).rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    damage(file)
    before = sorted(artifact.rglob("*"))
    for use in (edgepress.describe, write_board_kit, lambda path: edgepress.diff(sound, path)):
        with pytest.raises(UserError, match=rf"{file.name}.*edgepress verify"):
            use(artifact)
    assert sorted(artifact.rglob("*")) == before
