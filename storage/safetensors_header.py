"""Reads what a safetensors file holds from its header, without torch and without its tensors.

The header is described at https://github.com/huggingface/safetensors#format: eight bytes with the length of a JSON
object that maps names to dtypes, shapes and offsets.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError, summarize_error
from ..common.regular_files import require_regular
from ..common.validation import format_value
from .files import LFS_POINTER, require_no_lfs_pointer
from .recovery import advise_recovery
from .strict_json import parse_strict_json

LENGTH_BYTES, NUM_OFFSETS = 8, 2
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
# Bits of one element, by safetensors' names of dtypes. Those of fewer than 8 bits are left out.
DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
}


@dataclass(frozen=True)
class TensorHeader:
    """A tensor in a file.

    Attributes:
        name: Its name.
        dtype: Its dtype in the words of safetensors, such as `BF16`.
        shape: Its shape.
        nbytes: The bytes that it takes in the file.
        start: Offset of its first byte, behind the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int = 0

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.start + self.nbytes

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def read_tensor_headers(file: Path) -> list[TensorHeader]:
    """The tensors of a safetensors file, in the order of its header.

    Raises:
        UserError: The file cannot be read, is a git-lfs pointer, is not a safetensors file, or is truncated.
    """
    require_regular(file, advise_recovery)
    try:
        with file.open("rb") as stream:
            beginning = stream.read(LENGTH_BYTES)
            require_no_lfs_pointer(file, beginning + stream.read(len(LFS_POINTER)))
            stream.seek(LENGTH_BYTES)
            headers = _parse_header(stream.read(_parse_length(beginning)))
            end = stream.tell() + max((header.end for header in headers), default=0)
            size = stream.seek(0, os.SEEK_END)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is corrupt or truncated ({summarize_error(error)}). {advise_recovery(file)}"
        ) from error
    if size != end:
        problem = f"it has {size} bytes, but its header describes {end}"
        raise UserError(f"{file} is corrupt or truncated: {problem}. {advise_recovery(file)}")
    return headers


def _parse_length(beginning: bytes) -> int:
    length = int.from_bytes(beginning, "little")
    if len(beginning) < LENGTH_BYTES or length > MAX_HEADER_BYTES:
        raise ValueError("it does not begin with the length of a header")
    return length


def _parse_header(text: bytes) -> list[TensorHeader]:
    """The tensors that a header describes.

    Raises:
        ValueError: The header is invalid.
    """
    entries = parse_strict_json(text.decode())
    tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    headers = []
    for name, entry in tensors.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
            raise ValueError(f"it describes no tensor under the name {name!r}")  # noqa: TRY004  of the file's content
        shape, offsets = (_parse_sizes(entry.get(key), f"{key} of {name!r}") for key in ("shape", "data_offsets"))
        if len(offsets) != NUM_OFFSETS:
            raise ValueError(f"data_offsets of {name!r} are no beginning and end")
        start, end = offsets
        headers.append(TensorHeader(name, entry["dtype"], shape, end - start, start))
    position = 0
    for header in sorted(headers, key=lambda header: (header.start, header.end)):
        bits = DTYPE_BITS.get(header.dtype)
        if header.start != position or (bits and header.numel * bits != header.nbytes * 8):
            raise ValueError(f"the place of the tensor {header.name!r} does not fit its shape")
        position = header.end
    return headers


def _parse_sizes(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(entry) is int and entry >= 0 for entry in value):
        raise ValueError(f"{name} is {format_value(value)} instead of a list of whole numbers")
    return tuple(value)
