"""Loads exported ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.named_configs import name_configs
from ...storage.integrity import is_link_out, require_inside, require_intact
from ...storage.layout import CONFIG_NAME, Artifact, is_export
from ...storage.pipeline_config import GraphConfig, OnnxPipelineConfig, RuntimeConfig, read_onnx_config
from ...storage.provenance import require_fresh
from ...storage.recognition import require_export
from ...storage.safetensors_header import read_tensor_headers
from .shape_buckets import BucketedGraph, ShapeBucket

EXPORT_AGAIN = "Run 'edgepress export onnx' again, or copy the folder again from where it was made."


@dataclass(frozen=True)
class ExportedOnnx:
    """Exported ONNX graphs.

    Attributes:
        folder: Their folder.
        pipeline_class: Class name of the pipeline.
        graph_files: Files of the graphs, by graph name; those of graphs of fixed shapes by file name.
        host_configs: Configs of the components and of the scheduler, by folder name.
        accuracy_level: `accuracy_level` of MatMulNBits.
        bucketed_graphs: All graphs of an export of fixed shapes, by name; empty if shapes are dynamic.
        image_sizes: Heights and widths of the images that graphs of fixed shapes generate; empty for any size.
        linked_weights: Weight files that are links out of the folder, by the name that graphs call them by.
        runtime: How graphs run on the device's CPU.
        uses_fp16: Whether graphs compute in float16.
    """

    folder: Path
    pipeline_class: str
    graph_files: Mapping[str, Path]
    host_configs: Mapping[str, Any]
    accuracy_level: int = 0
    bucketed_graphs: Mapping[str, BucketedGraph] = field(default_factory=dict)
    image_sizes: tuple[tuple[int, int], ...] = ()
    linked_weights: Mapping[str, Path] = field(default_factory=dict)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    uses_fp16: bool = False


def load_exported_onnx(artifact: Path) -> ExportedOnnx:
    """Loads the exported graphs of an artifact.

    Args:
        artifact: Folder of the artifact, or its `onnx` folder.

    Raises:
        UserError: The path is something else, nothing was exported, a newer version exported it, a file is missing or
            not as it was exported, or the model that the graphs were made from was replaced.
    """
    require_export(artifact)
    folder = find_onnx_folder(artifact)
    config = read_onnx_config(folder)
    files = {name: folder / graph.file for name, graph in config.graphs.items() if graph.file}
    files |= {bucket.file: folder / bucket.file for graph in config.graphs.values() for bucket in graph.buckets or ()}
    has_buckets = any(graph.buckets for graph in config.graphs.values())
    bucketed = {name: _make_bucketed_graph(name, graph) for name, graph in config.graphs.items()} if has_buckets else {}
    require_fresh(folder, config.model_sha256, config.sources)
    _require_files(folder, config, list(files.values()))
    return ExportedOnnx(
        folder,
        config.family,
        files,
        name_configs(config.host, "host."),
        config.accuracy_level,
        bucketed,
        config.sizes if bucketed else (),
        find_linked_weights(folder),
        config.runtime,
        config.uses_fp16,
    )


def find_onnx_folder(artifact: Path) -> Path:
    """The folder of the graphs: an artifact's `onnx`, or the folder itself if that is given."""
    return artifact if is_export(artifact) else Artifact(artifact).onnx


def find_linked_weights(folder: Path) -> dict[str, Path]:
    """Finds weights that are links out of a folder, which ONNX Runtime does not read by itself."""
    weights = [file for file in sorted(folder.glob("*.safetensors")) if is_link_out(folder, file)]
    return {file.name: file for file in weights}


def _require_files(folder: Path, config: OnnxPipelineConfig, graph_files: Sequence[Path]) -> None:
    """Checks that all files are there, as far as that takes no reading of weights."""
    for file in graph_files:
        if not file.exists():
            raise UserError(f"{file}, named in {CONFIG_NAME}, is missing. {EXPORT_AGAIN}")
        if not file.is_file():
            raise UserError(f"{file} is a folder, pipe or device instead of a graph. {EXPORT_AGAIN}")
    require_intact(folder, config.files, EXPORT_AGAIN)
    if not config.files:  # of an earlier release: no sizes and no hashes are known
        weights = sorted(folder.glob("*.safetensors"))
        for file in [*graph_files, *weights]:
            require_inside(folder, file)
        for file in weights:
            read_tensor_headers(file)


def _make_bucketed_graph(name: str, graph: GraphConfig) -> BucketedGraph:
    """The files of a graph; one whose shapes are always the same has a single file, under its own name."""
    input_axes = {port.name: port.shape for port in graph.inputs}
    buckets = [ShapeBucket(bucket.file, bucket.axes) for bucket in graph.buckets or ()]
    return BucketedGraph(input_axes, buckets or [ShapeBucket(name, {})])
