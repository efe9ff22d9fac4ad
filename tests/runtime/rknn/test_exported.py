"""What pipeline.json of parts for an NPU may lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn import exported

COMPLETE_CONFIG: dict[str, Any] = {
    "schema_version": exported.SCHEMA_VERSION,
    "family": "ZImagePipeline",
    "target": "rk3588",
    "toolkit": "2.5.0",
    "size": [128, 128],
    "tokens": 32,
    "host": {},
    "graphs": {},
}


def write_config(folder: Path, content: Any) -> Path:
    (folder / "rknn").mkdir()
    (folder / "rknn" / exported.CONFIG_FILE).write_text(json.dumps(content))
    return folder


def test_an_artifact_is_read(tmp_path: Path) -> None:
    found = exported.load_exported_rknn(write_config(tmp_path, COMPLETE_CONFIG))
    assert (found.target, found.image_size, found.parts) == ("rk3588", (128, 128), {})
    assert found.tile_size is None


def test_tiles_that_pictures_are_decoded_in_are_read(tmp_path: Path) -> None:
    assert exported.load_exported_rknn(write_config(tmp_path, COMPLETE_CONFIG | {"tile": 64})).tile_size == 64


@pytest.mark.parametrize("key", ["graphs", "size", "family", "host"])
def test_what_no_version_wrote_is_damage(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in COMPLETE_CONFIG.items() if name != key}
    with pytest.raises(UserError, match=r"pipeline\.json is damaged .*; export the artifact again"):
        exported.load_exported_rknn(write_config(tmp_path, content))


@pytest.mark.parametrize("graphs", [[], {"vae_decoder": [1]}, {"vae_decoder": [{"name": "vae_decoder"}]}])
def test_graphs_of_another_form_are_damage(tmp_path: Path, graphs: Any) -> None:
    with pytest.raises(UserError, match=r"pipeline\.json is damaged"):
        exported.load_exported_rknn(write_config(tmp_path, COMPLETE_CONFIG | {"graphs": graphs}))
