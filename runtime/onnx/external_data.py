"""Reads where an ONNX graph says that its weights are, without the package onnx, which boards lack.

ONNX Runtime depends on protobuf, which reads a graph by the few fields that are described here. Their numbers are from
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ...common.errors import UserError
from ...storage.relative_path import is_relative_path

PACKAGE = "edgepress.onnx"
EXTERNAL = 1  # TensorProto.DataLocation
# Message: its fields, each with its number, its type and whether it is repeated.
FIELDS = {
    "Entry": {"key": (1, "string", False), "value": (2, "string", False)},
    "Tensor": {
        "name": (8, "string", False),
        "external_data": (13, "Entry", True),
        "data_location": (14, "int32", False),
    },
    "Graph": {"initializer": (5, "Tensor", True)},
    "Model": {"ir_version": (1, "int64", False), "graph": (7, "Graph", False)},
}
TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
}


@dataclass(frozen=True)
class ExternalTensor:
    """Where a graph's weight is.

    Attributes:
        name: Name of the initializer.
        file: The file, relative to the graph's folder.
        offset: Its first byte in the file.
        nbytes: Its bytes; None for all until the end of the file.
    """

    name: str
    file: str
    offset: int
    nbytes: int | None


def check_graph(file: Path) -> None:
    """Checks that a file is an ONNX graph, and that the files of its weights hold what it reads from them.

    Raises:
        UserError: The file is not an ONNX graph, a path leaves its folder, or a file of weights is missing or short.
    """
    sizes: dict[str, int] = {}
    for tensor in read_external_tensors(file):
        if not is_relative_path(tensor.file):
            raise UserError(
                f"{file} reads {tensor.name} from {tensor.file!r}, which is not a path below its folder. Export again."
            )
        weights = file.parent / tensor.file
        if tensor.file not in sizes:
            if not weights.is_file():
                raise UserError(
                    f"{file} reads {tensor.name} from {weights}, which is missing. Copy or export it again."
                )
            sizes[tensor.file] = weights.stat().st_size
        if min(tensor.offset, tensor.nbytes or 0) < 0 or tensor.offset + (tensor.nbytes or 0) > sizes[tensor.file]:
            raise UserError(
                f"{file} reads {tensor.name} from bytes that {weights} does not have. Copy or export it again."
            )


def read_external_tensors(file: Path) -> Iterator[ExternalTensor]:
    """Reads which weights of a graph are in other files.

    Raises:
        UserError: The file is not an ONNX graph.
    """
    model = _model_class()()
    try:
        model.ParseFromString(file.read_bytes())
        if not model.ir_version or not model.HasField("graph"):  # any bytes may be a message without known fields
            raise DecodeError("no graph")  # noqa: TRY301
        for tensor in model.graph.initializer:
            if tensor.data_location == EXTERNAL:
                yield _describe(tensor)
    except (OSError, DecodeError, ValueError, KeyError) as error:
        raise UserError(f"{file} is not an ONNX graph. Export the artifact again.") from error


def _describe(tensor: Any) -> ExternalTensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    nbytes = int(entries["length"]) if "length" in entries else None
    return ExternalTensor(tensor.name, entries["location"], int(entries.get("offset", 0)), nbytes)


@cache
def _model_class() -> Any:
    """Describes the messages to protobuf, and returns the class of a model."""
    description = descriptor_pb2.FileDescriptorProto(name="edgepress/onnx.proto", package=PACKAGE, syntax="proto2")
    for name, fields in FIELDS.items():
        message = description.message_type.add(name=name)
        for field, (number, kind, is_repeated) in fields.items():
            label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if is_repeated else 1
            entry = message.field.add(name=field, number=number, label=label)
            if kind in TYPES:
                entry.type = TYPES[kind]
            else:
                entry.type, entry.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(description)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Model"))
