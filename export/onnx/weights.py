"""A component's weights beside its graphs: streamed into safetensors shards, and pointed at by offset.

What the graphs' initializers are called, and their shapes and dtypes, says what is written. Few tensors are in memory:
one that is being written, and the next ones, which other threads make meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir
import torch
from torch import Tensor

from ...checkpoint import SHARD_BYTES, Checkpoint
from ...errors import UserError
from ...int4 import AwqTensors
from ...products import dequantized
from ...progress import Progress, silent
from . import int8
from .int4 import is_symmetric, nbits
from .int8 import Int8Tensors

ALIGNMENT = 64  # bytes: a cache line, and no register is wider
HEADER_BYTES = 2**20  # at most, of a shard
AT_ONCE = 2**22  # elements that are cast at once
# Bytes that are written at once, as cp does: with 4 MiB the kernel (6.18, ext4) took four times as long for its pages.
WRITTEN_AT_ONCE = 2**17
THREADS = 3  # that make tensors while others are written, or wait for the disk
STORED = {
    ir.DataType.FLOAT: ("F32", torch.float32),
    ir.DataType.FLOAT16: ("F16", torch.float16),
    ir.DataType.BFLOAT16: ("BF16", torch.bfloat16),
    ir.DataType.INT8: ("I8", torch.int8),
    ir.DataType.UINT8: ("U8", torch.uint8),
    ir.DataType.INT4: ("U8", torch.uint8),
}
FLOATS = {stored: dtype for dtype, (_, stored) in STORED.items() if stored.is_floating_point}
Operands = Callable[[AwqTensors, str], Tensor]


@dataclass(frozen=True)
class Packed:
    """How a 4-bit linear is stored: (outputs, inputs), inputs in a block, and whether any zero point is not 8."""

    shape: tuple[int, int]
    block: int
    zero_points: bool


@dataclass(frozen=True)
class Bytes:
    """How an 8-bit linear is stored: (outputs, inputs). input_scale: of all its inputs; None: a scale of each token."""

    shape: tuple[int, int]
    input_scale: float | None


class Source:
    """A component's tensors by the names that graphs give them.

    packed: its 4-bit linears, each as it is stored. bytes: its 8-bit ones. A module that a `solution` holds is taken
    from it alone. `operands` arranges 4-bit tensors as the operator that reads them wants.
    """

    def __init__(self, checkpoint: Checkpoint, solution: Checkpoint | None = None, operands: Operands = nbits) -> None:
        self.folder, self._operands = checkpoint.folder, operands
        solved = dict.fromkeys(solution.names(), solution) if solution else {}
        modules = {_module(name) for name in solved}
        self._where = {name: checkpoint for name in checkpoint.names() if _module(name) not in modules} | solved
        linears = [_module(name) for name in self._where if name.endswith(".qweight")]
        self.packed = {linear: self._described(linear) for linear in linears if not self._in_bytes(linear)}
        self.bytes = {linear: self._described_bytes(linear) for linear in linears if self._in_bytes(linear)}

    @property
    def has_zero_points(self) -> bool:
        return any(linear.zero_points for linear in self.packed.values())

    def dtype_of_rows(self, embedding: str) -> ir.DataType:
        """What an embedding is stored in; INT8 has a scale a row."""
        name = f"{embedding}.weight"
        return FLOATS[self.stored(name).dtype] if name in self._where else ir.DataType.INT8

    def __contains__(self, name: str) -> bool:
        """Whether `made` can make it."""
        return name in self._where or self._is_packed(name)

    def stored(self, name: str) -> Tensor:
        """A tensor as it is on disk; nothing of it is read before it is used."""
        return self._where[name].tensor(name)

    def made(self, name: str) -> Tensor:
        """What a graph calls `name`: as it is stored, dequantized, or as an operator wants it."""
        if not self._is_packed(name):
            return self.stored(name)
        linear, _, kind = name.rpartition(".")
        if linear in self.bytes:
            stored = Int8Tensors(*self._tensors(linear, Int8Tensors._fields))
            return int8.dequantized(stored) if kind == "weight" else int8.operand(stored, kind)
        packed = AwqTensors(*self._tensors(linear, AwqTensors._fields))
        return dequantized(packed) if kind == "weight" else self._operands(packed, kind)

    def _tensors(self, linear: str, kinds: Sequence[str]) -> list[Tensor]:
        return [self.stored(f"{linear}.{kind}") for kind in kinds]

    def _is_packed(self, name: str) -> bool:
        """Whether a name is that of a linear's weight in 4 or 8 bits, or of an operand that makes it."""
        linear, _, kind = name.rpartition(".")
        return kind != "bias" and (linear in self.packed or linear in self.bytes)

    def _in_bytes(self, linear: str) -> bool:
        """Whether a code has a byte of its own; else eight are in a word."""
        outputs = self._where[f"{linear}.scales"].shape(f"{linear}.scales")[1]
        return self._where[f"{linear}.qweight"].shape(f"{linear}.qweight")[1] == outputs

    def _described_bytes(self, linear: str) -> Bytes:
        inputs, outputs = self._where[f"{linear}.qweight"].shape(f"{linear}.qweight")
        scale = f"{linear}.input_scale"
        return Bytes((outputs, inputs), float(self.stored(scale)) if scale in self._where else None)

    def _described(self, linear: str) -> Packed:
        groups, outputs = self._where[f"{linear}.scales"].shape(f"{linear}.scales")
        inputs, _ = self._where[f"{linear}.qweight"].shape(f"{linear}.qweight")
        return Packed((outputs, inputs), inputs // groups, not is_symmetric(self.stored(f"{linear}.qzeros")))


def _module(name: str) -> str:
    """The module that a tensor belongs to."""
    return name.rpartition(".")[0]


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class Entry:
    """A tensor that graphs ask for: its name, and its dtype and shape in them."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """As safetensors is told, which knows no 4 bits: two of them are a byte."""
        return (*self.shape[:-1], self.shape[-1] // 2) if self.dtype == ir.DataType.INT4 else self.shape

    @property
    def itemsize(self) -> int:
        return STORED[self.dtype][1].itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.stored_shape) * self.itemsize


def attach(models: Sequence[ir.Model], source: Source, folder: Path, stem: str, progress: Progress = silent) -> None:
    """Writes the weights that a component's graphs lack into shards in a folder, and points the graphs at them.

    Shards are called STEM-00001-of-0000N.safetensors and hold at most 1e9 bytes; a larger tensor has one of its own.
    Tensors begin at multiples of 64 bytes, and the few whose size is no such multiple come last, at multiples of
    their elements' size.

    Raises:
        UserError: the component lacks a tensor.
    """
    shards = _shards(_entries(models, source))
    stage, total = f"writing {stem}", sum(entry.nbytes for shard in shards for entry in shard)
    places: dict[str, tuple[str, int]] = {}
    done = 0
    with ThreadPoolExecutor(THREADS) as pool:
        synced = []
        for number, shard in enumerate(shards, 1):
            file = folder / f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
            for entry, offset in _write_shard(shard, source, file, pool):
                done += entry.nbytes
                progress(stage, done, total)
                places[entry.name] = (file.name, offset)
            synced.append(pool.submit(_sync, file))
        for one in synced:
            one.result()
    for model in models:
        _point(model, places, folder)


def lacking(model: ir.Model) -> list[ir.Value]:
    """The initializers of a graph whose values are not known yet."""
    return [value for value in model.graph.initializers.values() if value.const_value is None]


def _entries(models: Sequence[ir.Model], source: Source) -> list[Entry]:
    """What the graphs lack, once each, in the order in which they ask for it."""
    found = {entry.name: entry for model in models for entry in map(_entry, lacking(model))}
    missing = [name for name in found if name not in source]
    if missing:
        raise UserError(f"{source.folder} lacks the weight {missing[0]}; the model is incomplete.")
    return list(found.values())


def _entry(value: ir.Value) -> Entry:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    return Entry(value.name, value.dtype, value.shape.numpy())


def _shards(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries in shards; in each of them those come first that leave the next one aligned."""
    shards: list[list[Entry]] = [[]]
    size = HEADER_BYTES
    for entry in entries:
        if shards[-1] and size + entry.nbytes > SHARD_BYTES:
            shards.append([])
            size = HEADER_BYTES
        shards[-1].append(entry)
        size += entry.nbytes
    return [sorted(shard, key=lambda entry: (entry.nbytes % ALIGNMENT != 0, -entry.itemsize)) for shard in shards]


def _write_shard(
    shard: Sequence[Entry], source: Source, file: Path, pool: ThreadPoolExecutor
) -> Iterator[tuple[Entry, int]]:
    """Writes a shard; gives each tensor and its offset in the file once it is written."""
    with file.open("xb") as stream:
        stream.write(_header(shard))
        for entry, tensor in _made(shard, source, pool):
            offset = stream.tell()
            _write(entry, tensor, stream)
            yield entry, offset


def _made(shard: Sequence[Entry], source: Source, pool: ThreadPoolExecutor) -> Iterator[tuple[Entry, Tensor]]:
    """Every tensor of a shard in its order, a few being made while one is written."""
    waiting: deque[tuple[Entry, Future[Tensor]]] = deque()
    for entry in shard:
        waiting.append((entry, pool.submit(source.made, entry.name)))
        if len(waiting) == THREADS:
            first, made = waiting.popleft()
            yield first, made.result()
    for entry, made in waiting:
        yield entry, made.result()


def _sync(file: Path) -> None:
    """Puts a file on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _header(shard: Sequence[Entry]) -> bytes:
    """What a safetensors file begins with: a length, then dtype, shape and place of each tensor, and filling spaces."""
    said: dict[str, object] = {}
    end = 0
    for entry in shard:
        start, end = end, end + entry.nbytes
        said[entry.name] = {"dtype": STORED[entry.dtype][0], "shape": entry.stored_shape, "data_offsets": [start, end]}
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _write(entry: Entry, tensor: Tensor, stream: BinaryIO) -> None:
    """Writes a tensor in the entry's dtype, cast piece by piece.

    Raises:
        ValueError: it has another number of elements.
    """
    if tensor.numel() != math.prod(entry.stored_shape):
        raise ValueError(f"{entry.name} is {tuple(tensor.shape)}, where the graph has {entry.shape}")
    for piece in tensor.flatten().split(AT_ONCE):
        content = memoryview(piece.to(STORED[entry.dtype][1]).view(torch.uint8).numpy())
        for start in range(0, len(content), WRITTEN_AT_ONCE):
            stream.write(content[start : start + WRITTEN_AT_ONCE])


def _point(model: ir.Model, places: dict[str, tuple[str, int]], folder: Path) -> None:
    """Points the initializers of a graph at where their values are."""
    for value in lacking(model):
        entry = _entry(value)
        file, offset = places[entry.name]
        value.const_value = ir.ExternalTensor(
            file, offset, entry.nbytes, entry.dtype, shape=ir.Shape(entry.shape), name=entry.name, base_dir=folder
        )
