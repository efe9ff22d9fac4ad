"""Loading the pipeline.json of RKNN parts."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn.exported import find_rknn_folder, is_rknn_artifact, load_exported_rknn
from edgepress.storage.pipeline_config import read_rknn_config
from edgepress.storage.pipeline_config import write_config as seal_rknn

CONFIG: dict[str, Any] = {
    "schema_version": 1,
    "family": "ZImagePipeline",
    "target": "rk3588",
    "toolkit": "2.5.0",
    "size": [128, 128],
    "max_prompt_tokens": 32,
    "host": {},
    "graphs": {"vae_decoder": []},
}
# Of version 0.1.0, with keys that were renamed: tokens, picture, elsewhere, faults, relative, worst, peak, refused.
OLD_CONFIG: dict[str, Any] = {
    "schema_version": 1,
    "family": "ZImagePipeline",
    "target": "rk3588",
    "toolkit": "2.5.0",
    "size": [128, 128],
    "tokens": 96,
    "settings": {"target": "rk3588", "tokens": 96},
    "graphs": {
        "text_encoder": [
            {
                "name": "text_encoder",
                "inputs": ["embeddings"],
                "device": "npu",
                "config": {"target_platform": "rk3588"},
                "quantized": False,
                "float_layers": [],
                "bytes": 4,
                "sha256": hashlib.sha256(b"rknn").hexdigest(),
                "operators": {"npu": 43, "elsewhere": []},
                "faults": [],
                "memory": {"weights": 1, "internal": 2},
                "simulated": {"relative": 1e-3, "cosine": 1.0},
                "worst": [{"operator": "Conv", "name": "a", "error": 1e-6}],
                "build": {"seconds": 3.5, "peak": 5},
                "precision": "fp16",
                "refused": [{"precision": "w8a8", "reason": "too far"}],
                "status": "simulated",
            }
        ]
    },
    "host": {"scheduler": {}},
    "picture": {"float": None, "simulated": 63.4},
    "verified_on_a_board": False,
    "sources": [],
}


def write_config(artifact: Path, content: Any) -> Path:
    (artifact / "rknn").mkdir()
    (artifact / "rknn" / "pipeline.json").write_text(json.dumps(content))
    return artifact


def test_a_config_is_loaded(tmp_path: Path) -> None:
    exported = load_exported_rknn(write_config(tmp_path, CONFIG))
    assert (exported.target, exported.image_size, exported.parts) == ("rk3588", (128, 128), {})
    assert exported.tile_size is None


def test_a_config_of_an_earlier_version_is_loaded(tmp_path: Path) -> None:
    artifact = write_config(tmp_path, OLD_CONFIG)
    (artifact / "rknn" / "text_encoder.rknn").write_bytes(b"rknn")
    exported = load_exported_rknn(artifact / "rknn")
    part = exported.parts["text_encoder"]
    assert exported.max_prompt_tokens == 96
    assert part.operators is not None
    assert part.simulated is not None
    assert part.rejected is not None
    assert (part.operators.not_on_npu, part.errors, part.simulated.relative_error) == ((), (), 1e-3)
    assert part.rejected[0].reason == "too far"


def test_the_tile_size_is_loaded(tmp_path: Path) -> None:
    assert load_exported_rknn(write_config(tmp_path, CONFIG | {"tile": 64})).tile_size == 64


@pytest.mark.parametrize("key", ["graphs", "size", "family", "host"])
def test_a_missing_key_is_reported(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in CONFIG.items() if name != key}
    message = rf"pipeline\.json is corrupt: the key '{key}' is missing\. Run 'edgepress export rknn' again"
    with pytest.raises(UserError, match=message):
        load_exported_rknn(write_config(tmp_path, content))


@pytest.mark.parametrize("graphs", [[], {"vae_decoder": [1]}, {"vae_decoder": [{"name": "vae_decoder"}]}])
def test_malformed_graphs_are_reported(tmp_path: Path, graphs: Any) -> None:
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt: .*graphs"):
        load_exported_rknn(write_config(tmp_path, CONFIG | {"graphs": graphs}))


def test_a_missing_part_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text_encoder\.rknn, named in pipeline\.json, is missing"):
        load_exported_rknn(write_config(tmp_path, OLD_CONFIG))


def test_a_truncated_part_is_reported(tmp_path: Path) -> None:
    artifact = write_config(tmp_path, OLD_CONFIG)
    (artifact / "rknn" / "text_encoder.rknn").write_bytes(b"rkn")
    with pytest.raises(
        UserError, match=r"text_encoder\.rknn has 3 bytes instead of 4\. Run 'edgepress export rknn' again"
    ):
        load_exported_rknn(artifact)


def test_a_board_may_lack_the_simulator_as_a_whole(tmp_path: Path) -> None:
    folder = write_config(tmp_path, CONFIG) / "rknn"
    (folder / "simulator").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (folder / "simulator" / name).write_bytes(b"graph")
    seal_rknn(read_rknn_config(folder), folder)
    load_exported_rknn(folder)
    (folder / "simulator" / "a.onnx").unlink()
    with pytest.raises(UserError, match=r"simulator/a\.onnx is missing"):
        load_exported_rknn(folder)
    shutil.rmtree(folder / "simulator")
    load_exported_rknn(folder)


def test_onnx_graphs_take_precedence_in_an_artifact(tmp_path: Path) -> None:
    artifact = write_config(tmp_path, CONFIG)
    assert is_rknn_artifact(artifact)
    (artifact / "onnx").mkdir()
    (artifact / "onnx" / "pipeline.json").touch()
    assert not is_rknn_artifact(artifact)
    assert is_rknn_artifact(artifact / "rknn")


def test_parts_are_recognized_whatever_their_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_config(tmp_path, CONFIG) / "rknn"
    monkeypatch.chdir(folder)
    assert is_rknn_artifact(Path())
    assert find_rknn_folder(Path()) == Path()
    copy = folder.rename(tmp_path / "board")
    assert is_rknn_artifact(copy)
    assert find_rknn_folder(copy) == copy
