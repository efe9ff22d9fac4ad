"""Loads exported ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...storage.layout import CONFIG_NAME, Artifact, is_export
from ...storage.pipeline_config import GraphConfig, read_onnx_config
from .shape_buckets import BucketedGraph, ShapeBucket


@dataclass(frozen=True)
class ExportedOnnx:
    """Exported ONNX graphs.

    Attributes:
        folder: Their folder.
        pipeline_class: Class name of the pipeline.
        graph_files: Files of the graphs, by graph name; those of graphs of fixed shapes by file name.
        host_configs: Configs of the components and of the scheduler, by folder name.
        accuracy_level: `accuracy_level` of MatMulNBits.
        bucketed_graphs: Graphs of fixed shapes, by name.
        image_sizes: Heights and widths of the images that graphs of fixed shapes generate; empty for any size.
    """

    folder: Path
    pipeline_class: str
    graph_files: Mapping[str, Path]
    host_configs: Mapping[str, Any]
    accuracy_level: int = 0
    bucketed_graphs: Mapping[str, BucketedGraph] = field(default_factory=dict)
    image_sizes: tuple[tuple[int, int], ...] = ()


def load_exported_onnx(artifact: Path) -> ExportedOnnx:
    """Loads the exported graphs of an artifact.

    Args:
        artifact: Folder of the artifact, or its `onnx` folder.

    Raises:
        UserError: Nothing was exported, another version exported it, or the file of a graph is missing.
    """
    if not artifact.is_dir():
        raise UserError(f"Artifact folder {artifact} does not exist. Create it with 'edgepress export onnx'.")
    folder = artifact if is_export(artifact) else Artifact(artifact).onnx
    config = read_onnx_config(folder)
    files = {name: folder / graph.file for name, graph in config.graphs.items() if graph.file}
    bucketed = {name: _make_bucketed_graph(graph) for name, graph in config.graphs.items() if graph.buckets}
    files |= {bucket.name: folder / bucket.name for graph in bucketed.values() for bucket in graph.buckets}
    for file in files.values():
        if not file.exists():
            raise UserError(f"{file}, named in {CONFIG_NAME}, is missing. Export the artifact again.")
    sizes = config.sizes if bucketed else ()
    return ExportedOnnx(folder, config.family, files, config.host, config.accuracy_level, bucketed, sizes)


def _make_bucketed_graph(graph: GraphConfig) -> BucketedGraph:
    input_axes = {port.name: port.shape for port in graph.inputs}
    return BucketedGraph(input_axes, [ShapeBucket(bucket.file, bucket.axes) for bucket in graph.buckets or ()])
