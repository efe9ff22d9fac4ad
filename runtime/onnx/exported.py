"""Reads the pipeline.json of an exported folder: which graphs there are, and what the host must know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from .shape_buckets import BucketedGraph, ShapeBucket

SCHEMA_VERSION = 1
CONFIG_FILE = "pipeline.json"


@dataclass(frozen=True)
class ExportedOnnx:
    """An exported folder: its pipeline's class, its graphs' files by name, and its host's configs by component.

    accuracy_level: at which products of dequantized 4-bit weights are computed. shaped: of graphs of fixed shapes, by
    name, which files they have; then `sizes` are those of all pictures, height and width.
    """

    folder: Path
    pipeline_class: str
    graph_files: Mapping[str, Path]
    host_configs: Mapping[str, Any]
    accuracy_level: int = 0
    bucketed_graphs: Mapping[str, BucketedGraph] = field(default_factory=dict)
    image_sizes: tuple[tuple[int, int], ...] = ()


def load_exported_onnx(artifact: Path) -> ExportedOnnx:
    """The exported pipeline of an artifact folder, or of its `onnx` folder itself.

    Raises:
        UserError: nothing was exported there, by another version, or a graph's file is missing.
    """
    folder = artifact if (artifact / CONFIG_FILE).exists() else artifact / "onnx"
    content = _check_schema(_read_json(folder / CONFIG_FILE, artifact), folder / CONFIG_FILE)
    with reject_malformed(folder / CONFIG_FILE):
        exported = _parse_exported(folder, content)
    missing = [file for file in exported.graph_files.values() if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing, though {CONFIG_FILE} names it; export the artifact again.")
    return exported


@contextmanager
def reject_malformed(path: Path) -> Iterator[None]:
    """Takes what a file says for what it should; raises UserError where it is not as any version has written it."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); export the artifact again.") from error


def _parse_exported(folder: Path, content: Mapping[str, Any]) -> ExportedOnnx:
    graphs = {name: folder / graph["file"] for name, graph in content["graphs"].items() if "file" in graph}
    shaped = {name: _parse_bucketed_graph(graph) for name, graph in content["graphs"].items() if "buckets" in graph}
    graphs |= {bucket.name: folder / bucket.name for graph in shaped.values() for bucket in graph.buckets}
    sizes = tuple((height, width) for height, width in content["sizes"]) if shaped else ()
    level = content.get("accuracy_level", 0)
    return ExportedOnnx(folder, content["family"], graphs, content["host"], level, shaped, sizes)


def _parse_bucketed_graph(graph: Mapping[str, Any]) -> BucketedGraph:
    ports = {port["name"]: tuple(port["shape"]) for port in graph["inputs"]}
    return BucketedGraph(ports, [ShapeBucket(bucket["file"], bucket["axes"]) for bucket in graph["buckets"]])


def _read_json(path: Path, artifact: Path) -> Any:
    if not artifact.is_dir():
        raise UserError(f"There is no artifact folder {artifact}; 'edgepress export onnx' makes one.")
    if not path.exists():
        raise UserError(f"{artifact} holds no onnx/{CONFIG_FILE}; 'edgepress export onnx' makes it.")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); export the artifact again.") from error


def _check_schema(content: Any, path: Path) -> dict[str, Any]:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is of schema {version}, and this edgepress reads {SCHEMA_VERSION}; export it again.")
    lacking = [key for key in ("family", "graphs", "host") if key not in content]
    if lacking:
        raise UserError(f"{path} does not say {', '.join(lacking)}; export the artifact again.")
    return dict(content)
