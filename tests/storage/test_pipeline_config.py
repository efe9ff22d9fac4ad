"""pipeline.json: what is written is read again, files of earlier releases are read, and damaged ones are rejected."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.described_folder import write_checksum_of

from edgepress.common.errors import UserError
from edgepress.storage.files import FileRecord
from edgepress.storage.layout import CONFIG_NAME
from edgepress.storage.pipeline_config import (
    BucketConfig,
    BuildRecord,
    GraphConfig,
    LayerErrorConfig,
    OnnxPipelineConfig,
    OperatorsConfig,
    OutputErrorConfig,
    ParityConfig,
    PartConfig,
    PartMemoryConfig,
    PortConfig,
    RejectionConfig,
    RknnPipelineConfig,
    SimulationConfig,
    read_onnx_config,
    read_rknn_config,
    write_config,
)

SOURCE = FileRecord(path="vae/config.json", bytes=2, sha256="00" * 32)
IDS = PortConfig(name="ids", dtype="int64", shape=(1, "T"))
ONNX = OnnxPipelineConfig(
    family="ZImagePipeline",
    precision="int4",
    format="qdq",
    opset=21,
    float_dtype="fp16",
    sizes=((128, 64),),
    shapes="fixed",
    max_prompt_tokens=64,
    graphs={
        "text_encoder": GraphConfig(file="text_encoder.onnx", component="text_encoder", inputs=(IDS,), outputs=(IDS,)),
        "transformer": GraphConfig(buckets=(BucketConfig(file="transformer-0.onnx", axes={"T": 64}),)),
    },
    host={"vae": {"sample_size": 128}, "max_prompt_tokens": 64},
    sources=(SOURCE,),
    parity={
        "exact": ParityConfig(
            graphs={"transformer": OutputErrorConfig(max_abs=0.5, relative=0.25)}, psnr=None, image_compared=True
        )
    },
)
CPU_PART = PartConfig(
    name="text_encoder",
    inputs=("ids",),
    device="cpu",
    config={},
    quantized=False,
    float_layers=(),
    status="not simulated",
)
NPU_PART = PartConfig(
    name="transformer-0",
    inputs=("latents", "t"),
    device="npu",
    config={"quantized_dtype": "w8a8"},
    quantized=True,
    float_layers=("x",),
    bytes=5,
    sha256="11" * 32,
    operators=OperatorsConfig(npu=4, not_on_npu=("Gather g",)),
    errors=(),
    memory=PartMemoryConfig(weights=3, internal=2),
    simulated=SimulationConfig(relative_error=0.5, cosine=0.75),
    worst_layers=(LayerErrorConfig(operator="MatMul", name="m", error=0.5),),
    build=BuildRecord(seconds=1.5, peak_bytes=7),
    precision="w8a8",
    rejected=(RejectionConfig(precision="w4a16", reason="too far"),),
    status="simulated",
)
RKNN = RknnPipelineConfig(
    family="ZImagePipeline",
    target="rk3588",
    toolkit="2.3.2",
    size=(128, 64),
    max_prompt_tokens=96,
    settings={"memory": 8.0},
    graphs={"text_encoder": (CPU_PART,), "transformer": (NPU_PART,)},
    host={},
    image_psnr={"float": None, "simulated": 40.0},
    sources=(SOURCE,),
)
# As commit 0b5298e wrote the same.
OLD_ONNX: dict[str, Any] = {
    "schema_version": 1,
    "family": "ZImagePipeline",
    "precision": "int4",
    "flavour": "qdq",
    "opset": 21,
    "accuracy_level": 0,
    "activations": "dynamic",
    "floats": "fp16",
    "sizes": [[128, 64]],
    "shapes": "fixed",
    "tokens": 64,
    "graphs": {
        "text_encoder": {
            "file": "text_encoder.onnx",
            "component": "text_encoder",
            "inputs": [{"name": "ids", "dtype": "int64", "shape": [1, "T"]}],
            "outputs": [{"name": "ids", "dtype": "int64", "shape": [1, "T"]}],
        },
        "transformer": {
            "buckets": [{"file": "transformer-0.onnx", "axes": {"T": 64}}],
            "component": "",
            "inputs": [],
            "outputs": [],
        },
    },
    "host": {"vae": {"sample_size": 128}, "max_prompt_tokens": 64},
    "sources": [SOURCE.model_dump()],
    "parity": {"exact": {"graphs": {"transformer": {"largest": 0.5, "relative": 0.25}}, "psnr": None, "painted": True}},
}
OLD_RKNN: dict[str, Any] = {
    "schema_version": 1,
    "family": "ZImagePipeline",
    "target": "rk3588",
    "toolkit": "2.3.2",
    "size": [128, 64],
    "tokens": 96,
    "tile": None,
    "settings": {"memory": 8.0},
    "graphs": {
        "text_encoder": [
            {
                "name": "text_encoder",
                "inputs": ["ids"],
                "device": "cpu",
                "config": {},
                "quantized": False,
                "float_layers": [],
                "status": "not simulated",
            }
        ],
        "transformer": [
            {
                "name": "transformer-0",
                "inputs": ["latents", "t"],
                "device": "npu",
                "config": {"quantized_dtype": "w8a8"},
                "quantized": True,
                "float_layers": ["x"],
                "bytes": 5,
                "sha256": "11" * 32,
                "operators": {"npu": 4, "elsewhere": ["Gather g"]},
                "faults": [],
                "memory": {"weights": 3, "internal": 2},
                "simulated": {"relative": 0.5, "cosine": 0.75},
                "worst": [{"operator": "MatMul", "name": "m", "error": 0.5}],
                "build": {"seconds": 1.5, "peak": 7},
                "precision": "w8a8",
                "refused": [{"precision": "w4a16", "reason": "too far"}],
                "status": "simulated",
            }
        ],
    },
    "host": {},
    "picture": {"float": None, "simulated": 40.0},
    "verified_on_a_board": False,
    "sources": [SOURCE.model_dump()],
}
RENAMED = {
    "flavour": "format",
    "floats": "float_dtype",
    "tokens": "max_prompt_tokens",
    "largest": "max_abs",
    "painted": "image_compared",
    "picture": "image_psnr",
    "elsewhere": "not_on_npu",
    "faults": "errors",
    "worst": "worst_layers",
    "peak": "peak_bytes",
    "refused": "rejected",
}


def write_content(folder: Path, content: Any) -> Path:
    (folder / CONFIG_NAME).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


def rename(content: Any) -> Any:
    """The content with today's keys."""
    if isinstance(content, dict):
        renamed = RENAMED | ({"relative": "relative_error"} if "cosine" in content else {})
        return {renamed.get(key, key): rename(value) for key, value in content.items()}
    return [rename(entry) for entry in content] if isinstance(content, list) else content


def test_a_config_that_was_written_is_read_again(tmp_path: Path) -> None:
    write_config(ONNX, tmp_path)
    assert read_onnx_config(tmp_path) == ONNX
    write_config(RKNN, tmp_path)
    assert read_rknn_config(tmp_path) == RKNN


def test_files_of_the_first_release_are_read(tmp_path: Path) -> None:
    assert read_onnx_config(write_content(tmp_path, OLD_ONNX)) == ONNX
    assert read_rknn_config(write_content(tmp_path, OLD_RKNN)) == RKNN


@pytest.mark.parametrize(
    ("config", "old"),
    [(ONNX, OLD_ONNX | {"session_options": None}), (RKNN, OLD_RKNN)],
    ids=["onnx", "rknn"],
)
def test_keys_are_written_in_the_order_of_the_first_release(
    config: OnnxPipelineConfig | RknnPipelineConfig, old: dict[str, Any], tmp_path: Path
) -> None:
    """Keys of later releases follow."""
    write_config(config, tmp_path)
    written = json.loads((tmp_path / CONFIG_NAME).read_text("utf-8"))
    assert (written.pop("model_sha256"), written.pop("files"), written.pop("presets")) == (None, [], {})
    assert written.pop("runtime") == {"threads": 0, "cores": "all"}
    for parity in written.get("parity", {}).values():
        assert parity.pop("fp16_sums") == {}
    assert json.dumps(written) == json.dumps(rename(old))


def test_keys_of_later_releases_are_ignored(tmp_path: Path) -> None:
    assert read_onnx_config(write_content(tmp_path, rename(OLD_ONNX) | {"new": 1})) == ONNX


def test_a_missing_file_is_reported_with_the_command_that_creates_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipeline\.json does not exist\. Run 'edgepress export onnx' to create it"):
        read_onnx_config(tmp_path)
    with pytest.raises(UserError, match=r"Run 'edgepress export rknn' to create it"):
        read_rknn_config(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "\x00", "[]", "1", '{"schema_version": 1, "schema_version": 1}'])
def test_a_file_that_is_no_json_object_is_corrupt(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt: .*Run 'edgepress export rknn' again\."):
        read_rknn_config(write_content(tmp_path, content))


def test_a_file_of_another_program_is_named(tmp_path: Path) -> None:
    write_content(tmp_path, {"pipeline": "build", "steps": []})
    with pytest.raises(UserError, match=r"pipeline\.json was written by another program\. Give a folder"):
        read_onnx_config(tmp_path)


@pytest.mark.parametrize("version", [None, 0, "1", True])
def test_another_schema_version_is_rejected(tmp_path: Path, version: Any) -> None:
    with pytest.raises(UserError, match=r"has schema version .*, but this edgepress reads version 1"):
        read_onnx_config(write_content(tmp_path, rename(OLD_ONNX) | {"schema_version": version}))


def test_a_newer_schema_version_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    write_content(tmp_path, rename(OLD_ONNX) | {"schema_version": 2})
    with pytest.raises(UserError, match=r"pipeline\.json .* a newer edgepress wrote it\. Upgrade edgepress\."):
        read_onnx_config(tmp_path)


def test_files_of_an_export_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "a.npz").write_bytes(b"abc")
    write_config(ONNX, tmp_path)
    write_config(ONNX, tmp_path)  # neither pipeline.json nor SHA256SUMS records itself
    (file,) = read_onnx_config(tmp_path).files
    assert (file.path, file.bytes, file.sha256) == ("golden/a.npz", 3, hashlib.sha256(b"abc").hexdigest())
    listed = (tmp_path / "SHA256SUMS").read_text().split()[1::2]
    assert listed == ["golden/a.npz", CONFIG_NAME]


def test_a_file_that_was_changed_is_rejected(tmp_path: Path) -> None:
    write_config(ONNX, tmp_path)
    text = (tmp_path / CONFIG_NAME).read_text("utf-8")
    write_content(tmp_path, text.replace('"opset": 21', '"opset": 22'))
    with pytest.raises(
        UserError, match=r"pipeline\.json was changed: .* not the one in SHA256SUMS\. Run 'edgepress ex"
    ):
        read_onnx_config(tmp_path)


def test_an_export_with_hashes_is_not_read_unlisted(tmp_path: Path) -> None:
    """Or whoever changes it need only remove SHA256SUMS, or its line."""
    (tmp_path / "a.npz").touch()
    write_config(ONNX, tmp_path)
    file = tmp_path / "SHA256SUMS"
    for change, problem in ((lambda: file.write_text(""), "does not list pipeline"), (file.unlink, "is missing")):
        change()
        with pytest.raises(UserError, match=rf"SHA256SUMS {problem}.*Run 'edgepress export onnx' again\."):
            read_onnx_config(tmp_path)


OUTSIDE = ["/etc/passwd", "../secret", "a/../../b", "", "a\\..\\..\\b"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leaves_the_export(tmp_path: Path, path: str) -> None:
    onnx, rknn = rename(OLD_ONNX), rename(OLD_RKNN)
    buckets = [{"file": path, "axes": {}}]
    for changes in (
        {"graphs": {"g": {"file": path}}},
        {"graphs": {"g": {"buckets": buckets}}},
        {"sources": [SOURCE.model_dump() | {"path": path}]},
        {"files": [SOURCE.model_dump() | {"path": path}]},
    ):
        write_checksum_of(write_content(tmp_path, onnx | changes) / CONFIG_NAME)
        with pytest.raises(UserError, match=r"pipeline\.json is corrupt: .*is not a path below this folder"):
            read_onnx_config(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    for part in (
        {**rknn["graphs"]["transformer"][0], "name": path},
        {**rknn["graphs"]["transformer"][0], "inputs": [path]},
    ):
        with pytest.raises(UserError, match=r"pipeline\.json is corrupt: .*is not the name of a file in this folder"):
            read_rknn_config(write_content(tmp_path, rknn | {"graphs": {"g": [part]}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": None}, "family = null: it must be text"),
        ({"graphs": []}, r"graphs = \[\]: it must be a mapping"),
        ({"graphs": {"vae_decoder": [1]}}, r"graphs\.vae_decoder = \[1\]: it must be a mapping"),
        ({"graphs": {"vae_decoder": {}}}, r"graphs\.vae_decoder: .*either a file or buckets"),
        ({"graphs": {"v": {"file": "a", "buckets": [{"file": "a", "axes": {}}]}}}, "either a file or buckets"),
        (
            {"graphs": {"v": {"file": "v.onnx", "inputs": [{"name": "x"}]}}},
            r"the key 'graphs\.v\.inputs\.0\.dtype' is missing",
        ),
        ({"sizes": [[64]]}, r"sizes\.0: entry 2 is missing"),
        ({"host": 1}, "host = 1: it must be a mapping"),
        (
            {"parity": {"exact": {"graphs": {}, "psnr": 1, "image_compared": True}}},
            r"parity\.exact\.graphs = \{\}: it must have at least 1 entr",
        ),
    ],
)
def test_a_damaged_file_is_reported_with_the_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"pipeline\.json is corrupt: .*{message}") as raised:
        read_onnx_config(write_content(tmp_path, OLD_ONNX | changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["family", "target", "toolkit", "size", "tokens", "graphs", "host"])
def test_a_missing_key_is_reported(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in OLD_RKNN.items() if name != key}
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt: the key '.*' is missing"):
        read_rknn_config(write_content(tmp_path, content))
