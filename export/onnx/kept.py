"""Traced graphs, kept for later exports: tracing is half of what exporting takes, and its result depends on little.

A graph is kept by a digest of all that it is made from: its description, the component's config, our code that traces,
and the versions of the libraries. It has no weights, and is a megabyte or less.
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

from ...models import Graph
from ...source_code import code_of, family_modules
from .trace import config_of, trace
from .weights import lacking

MOST = 100  # files that are kept
SUFFIX = ".graph"
DIGEST = hashlib.sha256().digest_size
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "onnx", "onnx-ir", "onnxscript", "numpy")
NOWHERE = ""  # where an initializer's values are as long as the weights are not attached


def traced(
    graph: Graph,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    sizes: Mapping[str, int] | None = None,
    blocks: range | None = None,
) -> ir.Model:
    """What `trace` gives for the same arguments, which is done only where no graph is kept.

    Raises:
        UserError: the folder has no config.json that names a class of diffusers or transformers.
    """
    key = _key(graph, folder, dtype, sizes, blocks)
    content = _kept(key)
    if content is None:
        content = _content(trace(graph, folder, dtype, sizes, blocks))
        with suppress(OSError, RuntimeError):  # no home, or a read-only one: costs tracing again, and nothing else
            _keep(content, _file(key))
    return _model(content)


def folder_of_graphs() -> Path:
    """Where the user's programs keep what they can make again (XDG Base Directory Specification).

    Raises:
        RuntimeError: the user has no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "edgepress" / "graphs"


def _file(key: str) -> Path:
    return folder_of_graphs() / f"{key}{SUFFIX}"


def _key(graph: Graph, folder: Path, dtype: torch.dtype, sizes: Mapping[str, int] | None, blocks: range | None) -> str:
    content = {
        "graph": repr(graph),
        "config": config_of(folder),
        "dtype": str(dtype),
        "sizes": sizes and dict(sizes),
        "blocks": repr(blocks),
        "code": code_of(trace.__module__, *family_modules(), alone=__name__),
        "libraries": {library: version(library) for library in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _kept(key: str) -> bytes | None:
    """What a file holds behind its SHA-256; None where it is not there, or damaged."""
    try:
        file = _file(key)
        stored = file.read_bytes()
        os.utime(file)  # what is used stays
    except (OSError, RuntimeError):
        return None
    digest, content = stored[:DIGEST], stored[DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def _keep(content: bytes, file: Path) -> None:
    """Writes a file, which other exports may do meanwhile; those not used for longest go where there are too many."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}.new")
    try:
        with new.open("wb") as stream:
            stream.write(hashlib.sha256(content).digest() + content)
            os.fsync(stream.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    for old in sorted(file.parent.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)[MOST:]:
        old.unlink(missing_ok=True)


def _content(model: ir.Model) -> bytes:
    """A graph as protobuf, which knows no initializers without values: theirs are said to be nowhere."""
    for value in lacking(model):
        assert value.dtype is not None
        assert value.shape is not None
        shape = ir.Shape(value.shape.numpy())
        value.const_value = ir.ExternalTensor(NOWHERE, 0, 0, value.dtype, shape=shape, name=value.name or "")
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _model(content: bytes) -> ir.Model:
    model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(content))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return model
