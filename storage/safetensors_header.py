"""Reads what a safetensors file holds from its header, without torch and without its tensors.

The header is described at https://github.com/huggingface/safetensors#format: eight bytes with the length of a JSON
object that maps names to dtypes, shapes and offsets.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class TensorHeader:
    """A tensor in a file.

    Attributes:
        name: Its name.
        dtype: Its dtype in the words of safetensors, such as `BF16`.
        shape: Its shape.
        nbytes: The bytes that it takes in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def read_tensor_headers(file: Path) -> list[TensorHeader]:
    """The tensors of a safetensors file, in the order of its header.

    Raises:
        UserError: The file cannot be read, or is not a safetensors file.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length) if length <= MAX_HEADER_BYTES else b"")
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return [
            TensorHeader(name, entry["dtype"], tuple(entry["shape"]), end - start)
            for name, entry in tensors.items()
            for start, end in [entry["data_offsets"]]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{file} is not a valid safetensors file ({error}). Download it again.") from error
