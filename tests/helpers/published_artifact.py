"""A small artifact as it is published: a model with its manifest, and ONNX graphs of it, all with their hashes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import FileRecord, hash_files, record_file
from edgepress.storage.layout import Artifact
from edgepress.storage.manifest import Manifest, write_manifest
from edgepress.storage.pipeline_config import OnnxPipelineConfig, write_config
from edgepress.storage.published_model import read_published_model
from edgepress.storage.weight_export import ComponentRecord, WeightExport, write_weight_export

from .small_artifact import write_small_artifact

WEIGHTS = "caption-00001-of-00001.safetensors"  # of a graph whose weights are in another file
SCALE = np.full(4, -1, np.float32)


def write_published_artifact(folder: Path) -> Artifact:
    """Writes the artifact; its images are upsampled noise."""
    artifact = Artifact(folder)
    write_small_artifact(folder)
    write_weights(artifact.onnx / WEIGHTS)
    _write_graph_with_weights(artifact.onnx / "caption.onnx")
    write_golden(artifact.onnx / "golden")
    publish_model(artifact, b"1")
    publish_onnx(artifact)
    return artifact


def publish_model(artifact: Artifact, content: bytes) -> None:
    """Writes the model of an artifact, with one weight file that ends in `content`, and its manifest."""
    (artifact.model / "vae").mkdir(parents=True, exist_ok=True)
    (artifact.model / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}')
    write_weights(artifact.model / "vae" / "model.safetensors", content)
    record_model(artifact)


def record_model(artifact: Artifact, **changes: Any) -> None:
    """Records the model of an artifact as it is, in its manifest."""
    files = hash_files(artifact.model)
    manifest = Manifest(
        device="custom",
        key="0",
        source="demo",
        recipe={},
        prompts_sha256="0" * 64,
        sources=[FileRecord(path="model_index.json", bytes=1, sha256="1" * 64)],
        files=files,
        layers=[],
        num_unquantized=0,
        sizes={},
        size_savings={},
        fp16_overflows=[],
        versions={},
    )
    write_manifest(manifest.model_copy(update=changes), artifact.path)
    listed = [file.model_copy(update={"path": f"model/{file.path}"}) for file in files]
    write_checksums([record_file(artifact.path, "manifest.json"), *listed], artifact.path)


def publish_onnx(artifact: Artifact, **changes: Any) -> None:
    """Records the graphs of an artifact as they are, as exported from its model."""
    model = read_published_model(artifact)
    assert model is not None
    error = {"max_abs": 0.0, "relative": 1e-6}
    changes = {
        "model_sha256": model.sha256,
        "sources": model.files,
        "parity": {"exact": {"graphs": {"caption": error}, "psnr": None, "image_compared": False}},
    } | changes
    content = json.loads((artifact.onnx / "pipeline.json").read_text("utf-8")) | changes
    write_config(OnnxPipelineConfig.model_validate(content), artifact.onnx)


def write_gguf_export(folder: Path, model_sha256: str = "") -> None:
    """Writes an export of weights as it is published, of one component, whose file holds no weights."""
    folder.mkdir()
    (folder / "transformer.gguf").write_bytes(b"GGUF")
    record = ComponentRecord(weights=100, bytes=50, types={"Q4_1": 3, "F32": 2}, max_difference=0.5)
    export = WeightExport(
        format=folder.name,
        family="ZImagePipeline",
        model_sha256=model_sha256,
        components={"transformer": record},
        versions={},
    )
    write_weight_export(export, folder)


def write_weights(file: Path, content: bytes = b"") -> None:
    """Writes a safetensors file with a tensor of four floats, and one of the given bytes."""
    values = SCALE.tobytes() + content
    tensors = {
        "scale": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "rest": {"dtype": "U8", "shape": [len(content)], "data_offsets": [16, len(values)]},
    }
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    file.write_bytes(struct.pack("<Q", len(header)) + header + values)


def write_golden(folder: Path, factor: float = 1) -> None:
    """Writes golden inputs and outputs of the graph with weights: it negates them, and outputs are off by a factor."""
    folder.mkdir()
    hidden = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    zeros = {f"in.{name}": np.zeros((1,) * rank, np.float32) for name, rank in {"pad": 3, "cos": 2, "sin": 2}.items()}
    np.savez(folder / "caption.npz", **{"in.hidden": hidden, **zeros, "out.v0": -factor * hidden})  # type: ignore[arg-type]


def _write_graph_with_weights(file: Path) -> None:
    """Writes the graph `caption` as a product with the tensor `scale`."""
    weights = file.with_name(WEIGHTS).read_bytes()
    offset = 8 + int.from_bytes(weights[:8], "little")
    scale = onnx.TensorProto(name="scale", data_type=TensorProto.FLOAT, dims=[4])
    scale.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": str(offset), "length": "16"}.items():
        scale.external_data.add(key=key, value=value)
    model = onnx.load(file)
    model.graph.node[0].CopyFrom(helper.make_node("Mul", [model.graph.input[0].name, "scale"], ["v0"]))
    model.graph.initializer.append(scale)
    file.write_bytes(model.SerializeToString())
