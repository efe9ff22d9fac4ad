"""Cache of traced graphs: tracing is half of the time of an export, and its result depends on little.

The key of a graph is a digest of all that it depends on: its description, the component's config, the code that traces
and the versions of the libraries. Graphs hold no weights, and take a megabyte or less.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from ...common.code_fingerprint import code_fingerprint, model_modules
from ...common.user_folders import get_graph_cache_folder
from ...models.base.graph import Graph
from ...pipelines.empty_modules import load_component_config
from ...storage.atomic_file import atomic_write
from .external_weights import list_unset_initializers
from .trace import trace_graph

MAX_ENTRIES = 100
CACHE_SUFFIX = ".graph"
DIGEST_BYTES = hashlib.sha256().digest_size
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "onnx", "onnx-ir", "onnxscript", "numpy")
NO_LOCATION = ""  # location of initializers whose weights are not attached yet


def trace_cached(
    graph: Graph,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    sizes: Mapping[str, int] | None = None,
    blocks: range | None = None,
) -> ir.Model:
    """Returns what `trace_graph` returns for the same arguments, from the cache where possible.

    Raises:
        UserError: The folder has no config.json that names a class of diffusers or transformers.
    """
    key = _compute_key(graph, folder, dtype, sizes, blocks)
    content = _read_entry(key)
    if content is None:
        content = _serialize(trace_graph(graph, folder, dtype, sizes, blocks))
        with suppress(OSError, RuntimeError):  # no home folder, or a read-only one: the next export traces again
            _write_entry(content, _get_cache_file(key))
    return _deserialize(content)


def _get_cache_file(key: str) -> Path:
    return get_graph_cache_folder() / f"{key}{CACHE_SUFFIX}"


def _compute_key(
    graph: Graph, folder: Path, dtype: torch.dtype, sizes: Mapping[str, int] | None, blocks: range | None
) -> str:
    content = {
        "graph": repr((graph.module, graph.inputs, graph.outputs)),  # its name and folder are not in what is traced
        "config": load_component_config(folder),
        "dtype": str(dtype),
        "sizes": sizes and dict(sizes),
        "blocks": repr(blocks),
        "code": code_fingerprint(trace_graph.__module__, *model_modules(), shallow=__name__),
        "libraries": {library: version(library) for library in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _read_entry(key: str) -> bytes | None:
    """Returns the content of an entry behind its SHA-256, or None where it is missing or corrupt."""
    try:
        file = _get_cache_file(key)
        stored = file.read_bytes()
        os.utime(file)  # recently used entries are evicted last
    except (OSError, RuntimeError):
        return None
    digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _write_entry(content: bytes, file: Path) -> None:
    """Writes an entry atomically, as other processes may write too, and evicts the least recently used ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, lambda temporary: temporary.write_bytes(hashlib.sha256(content).digest() + content))
    entries = sorted(file.parent.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in entries[MAX_ENTRIES:]:
        entry.unlink(missing_ok=True)


def _serialize(model: ir.Model) -> bytes:
    """Returns a graph as protobuf. That has no initializers without values, so they get an empty location."""
    for value in list_unset_initializers(model):
        assert value.dtype is not None
        assert value.shape is not None
        shape = ir.Shape(value.shape.numpy())
        value.const_value = ir.ExternalTensor(NO_LOCATION, 0, 0, value.dtype, shape=shape, name=value.name or "")
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _deserialize(content: bytes) -> ir.Model:
    model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(content))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return model
