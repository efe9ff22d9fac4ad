"""Configs in pipeline.json that make no host: every command that loads the export says so, in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.published_artifact import publish_onnx, write_published_artifact

import edgepress
from edgepress.common.errors import UserError
from edgepress.runtime.golden import run_goldens
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import record_file, write_json
from edgepress.storage.layout import Artifact
from edgepress.storage.pipeline_config import OnnxPipelineConfig


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published_artifact(tmp_path_factory.mktemp("malformed") / "artifact").path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("axes_dims", "x"), ("axes_dims", [0, 0, 0]), ("axes_dims", None), ("rope_theta", -1), ("rope_theta", "x"),
        ("all_patch_size", [0.5]), ("all_patch_size", [-1]), ("all_patch_size", []), ("axes_lens", "x"),
        ("in_channels", {}),
    ],
)  # fmt: skip
def test_a_host_that_cannot_be_made_is_named_with_its_file(artifact: Path, key: str, value: Any) -> None:
    file = artifact / "onnx" / "pipeline.json"
    before = file.read_text()
    host = json.loads(before)["host"]
    host["transformer"][key] = value
    publish_onnx(Artifact(artifact), host=host)
    try:
        for load in (edgepress.ImagePipeline, lambda folder: run_goldens(folder / "onnx")):
            with pytest.raises(UserError, match=r"onnx/pipeline\.json is corrupt \(.*\)\. Export the artifact again"):
                load(artifact)
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"graphs": {}}, "is corrupt: it lists no graphs"),
        ({"family": "APipeline"}, "Pipeline class 'APipeline' is not supported"),
        ({"shift": {}}, "shift = {}: it must be a number"),
        ({"use_karras_sigmas": True}, "Unsupported scheduler option use_karras_sigmas = true"),
    ],
)
def test_what_else_is_wrong_with_it_has_the_file_s_name(artifact: Path, keys: dict[str, Any], reason: str) -> None:
    file = artifact / "onnx" / "pipeline.json"
    before = file.read_text()
    content = json.loads(before)
    scheduler = content["host"]["scheduler"]
    scheduler |= {key: value for key, value in keys.items() if key not in content}
    write_json(content | {key: value for key, value in keys.items() if key in content}, file)
    write_checksums(
        [*OnnxPipelineConfig.model_validate(content).files, record_file(file.parent, file.name)], file.parent
    )
    try:
        with pytest.raises(UserError) as error:
            edgepress.ImagePipeline(artifact)
        assert str(file) in str(error.value)
        assert reason in str(error.value)
    finally:
        file.write_text(before)
