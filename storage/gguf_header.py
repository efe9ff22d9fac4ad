"""Reads what a GGUF file holds from its header, without its tensors and without the package gguf.

The header is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: the magic number, the version, the
numbers of tensors and of metadata entries, the metadata, and for each tensor its name, shape, type and offset.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..common.errors import UserError, summarize_error
from ..common.regular_files import require_regular
from .files import LFS_POINTER, require_no_lfs_pointer
from .recovery import advise_recovery

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # those with 64-bit lengths, little-endian
ARCHITECTURE, ALIGNMENT = "general.architecture", "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes that the tensors begin at a multiple of
MAX_TEXT = 2**26  # bytes of one text; tokenizers hold long lists, but no long texts
MAX_ENTRIES = 10**6  # tensors or metadata entries
MAX_DIMENSIONS = 4
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT_TYPE, ARRAY_TYPE = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file.

    Attributes:
        name: Its name.
        shape: Its shape, outer dimension first, as torch has it.
        type: The number of its type in ggml.
        start: Offset of its first byte in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of itself.

    Attributes:
        architecture: What `general.architecture` says; empty if it says nothing.
        tensors: Its tensors, in order.
    """

    architecture: str
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(file: Path) -> GgufHeader:
    """Reads the header of a GGUF file.

    Raises:
        UserError: The file cannot be read, is a git-lfs pointer, is no GGUF file, or is truncated within its header.
    """
    require_regular(file, advise_recovery)
    try:
        with file.open("rb") as stream:
            require_no_lfs_pointer(file, stream.read(len(LFS_POINTER)))
            stream.seek(0)
            return _parse_header(stream)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(
            f"{file} is no GGUF file that can be read ({summarize_error(error)}). Download it again."
        ) from error


def _parse_header(stream: BinaryIO) -> GgufHeader:
    if stream.read(len(MAGIC)) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _read_number(stream, "<I")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}, not {' or '.join(map(str, VERSIONS))}")
    num_tensors, num_entries = _read_count(stream), _read_count(stream)
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
        key = _read_text(stream)
        metadata[key] = _read_value(stream, _read_number(stream, "<I"))
    architecture, alignment = metadata.get(ARCHITECTURE, ""), metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if not isinstance(architecture, str) or not isinstance(alignment, int) or alignment < 1:
        raise ValueError("its metadata has values of wrong types")
    tensors = [_read_tensor(stream) for _ in range(num_tensors)]
    start = -(-stream.tell() // alignment) * alignment
    return GgufHeader(architecture, tuple(replace(tensor, start=start + tensor.start) for tensor in tensors))


def _read_tensor(stream: BinaryIO) -> GgufTensor:
    """Reads an entry of the table of tensors; `start` is relative to the first tensor."""
    name, num_dimensions = _read_text(stream), _read_number(stream, "<I")
    if num_dimensions > MAX_DIMENSIONS:
        raise ValueError(f"the tensor {name!r} has {num_dimensions} dimensions")
    shape = tuple(_read_number(stream, "<Q") for _ in range(num_dimensions))
    return GgufTensor(name, shape[::-1], _read_number(stream, "<I"), _read_number(stream, "<Q"))


def _read_value(stream: BinaryIO, kind: int) -> Any:
    """Reads a value of the metadata; arrays are passed over."""
    if kind in SCALARS:
        return struct.unpack(SCALARS[kind], _read_bytes(stream, struct.calcsize(SCALARS[kind])))[0]
    if kind == TEXT_TYPE:
        return _read_text(stream)
    if kind != ARRAY_TYPE:
        raise ValueError(f"the metadata has a value of the unknown type {kind}")
    item, count = _read_number(stream, "<I"), _read_count(stream)
    if item in SCALARS:
        _read_bytes(stream, struct.calcsize(SCALARS[item]) * count)
    elif item == TEXT_TYPE:
        for _ in range(count):
            _read_text(stream)
    else:
        raise ValueError(f"the metadata has an array of the unknown type {item}")
    return None


def _read_count(stream: BinaryIO) -> int:
    count = _read_number(stream, "<Q")
    if count > MAX_ENTRIES:
        raise ValueError(f"it says that there are {count} entries")
    return count


def _read_text(stream: BinaryIO) -> str:
    length = _read_number(stream, "<Q")
    if length > MAX_TEXT:
        raise ValueError(f"it says that a text has {length} bytes")
    return _read_bytes(stream, length).decode("utf-8", "replace")


def _read_number(stream: BinaryIO, form: str) -> int:
    (number,) = struct.unpack(form, _read_bytes(stream, struct.calcsize(form)))
    return int(number)


def _read_bytes(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise ValueError("it is truncated")
    return content
