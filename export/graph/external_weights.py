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

from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...numerics.awq_packing import AwqTensors
from ...numerics.int4_matmul import dequantize_awq
from ...storage.checkpoint import MAX_SHARD_BYTES, Checkpoint
from . import int8_operands
from .int4_operands import has_symmetric_zero_points, to_matmul_nbits_operand
from .int8_operands import Int8Tensors

ALIGNMENT = 64  # bytes: a cache line, and no register is wider
HEADER_BYTES = 2**20  # at most, of a shard
CAST_CHUNK = 2**22  # elements that are cast at once
# Bytes that are written at once, as cp does: with 4 MiB the kernel (6.18, ext4) took four times as long for its pages.
WRITE_CHUNK_BYTES = 2**17
NUM_THREADS = 3  # that make tensors while others are written, or wait for the disk
STORAGE_DTYPES = {
    ir.DataType.FLOAT: ("F32", torch.float32),
    ir.DataType.FLOAT16: ("F16", torch.float16),
    ir.DataType.BFLOAT16: ("BF16", torch.bfloat16),
    ir.DataType.INT8: ("I8", torch.int8),
    ir.DataType.UINT8: ("U8", torch.uint8),
    ir.DataType.INT4: ("U8", torch.uint8),
}
FLOAT_DTYPES = {stored: dtype for dtype, (_, stored) in STORAGE_DTYPES.items() if stored.is_floating_point}
OperandLayout = Callable[[AwqTensors, str], Tensor]


@dataclass(frozen=True)
class Int4Layout:
    """How a 4-bit linear is stored: (outputs, inputs), inputs in a block, and whether any zero point is not 8."""

    shape: tuple[int, int]
    block_size: int
    has_zero_points: bool


@dataclass(frozen=True)
class Int8Layout:
    """How an 8-bit linear is stored: (outputs, inputs). input_scale: of all its inputs; None: a scale of each token."""

    shape: tuple[int, int]
    input_scale: float | None


class WeightSource:
    """A component's tensors by the names that graphs give them.

    packed: its 4-bit linears, each as it is stored. bytes: its 8-bit ones. A module that a `solution` holds is taken
    from it alone. `operands` arranges 4-bit tensors as the operator that reads them wants.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        solution: Checkpoint | None = None,
        to_operand: OperandLayout = to_matmul_nbits_operand,
    ) -> None:
        self.folder, self._to_operand = checkpoint.folder, to_operand
        solution_tensors = dict.fromkeys(solution.names(), solution) if solution else {}
        modules = {_get_module_name(name) for name in solution_tensors}
        self._checkpoints = {
            name: checkpoint for name in checkpoint.names() if _get_module_name(name) not in modules
        } | solution_tensors
        linears = [_get_module_name(name) for name in self._checkpoints if name.endswith(".qweight")]
        self.int4_linears = {linear: self._describe_int4(linear) for linear in linears if not self._is_int8(linear)}
        self.int8_linears = {linear: self._describe_int8(linear) for linear in linears if self._is_int8(linear)}

    @property
    def has_zero_points(self) -> bool:
        return any(linear.has_zero_points for linear in self.int4_linears.values())

    def get_embedding_dtype(self, embedding: str) -> ir.DataType:
        """What an embedding is stored in; INT8 has a scale a row."""
        name = f"{embedding}.weight"
        return FLOAT_DTYPES[self.load_tensor(name).dtype] if name in self._checkpoints else ir.DataType.INT8

    def __contains__(self, name: str) -> bool:
        """Whether `made` can make it."""
        return name in self._checkpoints or self._is_quantized(name)

    def load_tensor(self, name: str) -> Tensor:
        """A tensor as it is on disk; nothing of it is read before it is used."""
        return self._checkpoints[name].load_tensor(name)

    def materialize(self, name: str) -> Tensor:
        """What a graph calls `name`: as it is stored, dequantized, or as an operator wants it."""
        if not self._is_quantized(name):
            return self.load_tensor(name)
        linear, _, kind = name.rpartition(".")
        if linear in self.int8_linears:
            tensors = Int8Tensors(*self._load_linear(linear, Int8Tensors._fields))
            return (
                int8_operands.dequantize_int8(tensors)
                if kind == "weight"
                else int8_operands.to_int8_operand(tensors, kind)
            )
        awq_tensors = AwqTensors(*self._load_linear(linear, AwqTensors._fields))
        return dequantize_awq(awq_tensors) if kind == "weight" else self._to_operand(awq_tensors, kind)

    def _load_linear(self, linear: str, kinds: Sequence[str]) -> list[Tensor]:
        return [self.load_tensor(f"{linear}.{kind}") for kind in kinds]

    def _is_quantized(self, name: str) -> bool:
        """Whether a name is that of a linear's weight in 4 or 8 bits, or of an operand that makes it."""
        linear, _, kind = name.rpartition(".")
        return kind != "bias" and (linear in self.int4_linears or linear in self.int8_linears)

    def _is_int8(self, linear: str) -> bool:
        """Whether a code has a byte of its own; else eight are in a word."""
        outputs = self._checkpoints[f"{linear}.scales"].shape(f"{linear}.scales")[1]
        return self._checkpoints[f"{linear}.qweight"].shape(f"{linear}.qweight")[1] == outputs

    def _describe_int8(self, linear: str) -> Int8Layout:
        inputs, outputs = self._checkpoints[f"{linear}.qweight"].shape(f"{linear}.qweight")
        scale = f"{linear}.input_scale"
        return Int8Layout((outputs, inputs), float(self.load_tensor(scale)) if scale in self._checkpoints else None)

    def _describe_int4(self, linear: str) -> Int4Layout:
        groups, outputs = self._checkpoints[f"{linear}.scales"].shape(f"{linear}.scales")
        inputs, _ = self._checkpoints[f"{linear}.qweight"].shape(f"{linear}.qweight")
        return Int4Layout(
            (outputs, inputs), inputs // groups, not has_symmetric_zero_points(self.load_tensor(f"{linear}.qzeros"))
        )


def _get_module_name(name: str) -> str:
    """The module that a tensor belongs to."""
    return name.rpartition(".")[0]


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class TensorEntry:
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
        return STORAGE_DTYPES[self.dtype][1].itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.stored_shape) * self.itemsize


def write_external_data(
    models: Sequence[ir.Model], source: WeightSource, folder: Path, name: str, progress: Progress = no_progress
) -> None:
    """Writes the weights that a component's graphs lack into shards in a folder, and points the graphs at them.

    Shards are called STEM-00001-of-0000N.safetensors and hold at most 1e9 bytes; a larger tensor has one of its own.
    Tensors begin at multiples of 64 bytes, and the few whose size is no such multiple come last, at multiples of
    their elements' size.

    Raises:
        UserError: the component lacks a tensor.
    """
    shards = _split_into_shards(_collect_entries(models, source))
    stage, total = f"writing {name}", sum(entry.nbytes for shard in shards for entry in shard)
    locations: dict[str, tuple[str, int]] = {}
    num_bytes = 0
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        syncs = []
        for number, shard in enumerate(shards, 1):
            file = folder / f"{name}-{number:05d}-of-{len(shards):05d}.safetensors"
            for entry, offset in _write_shard(shard, source, file, pool):
                num_bytes += entry.nbytes
                progress(stage, num_bytes, total)
                locations[entry.name] = (file.name, offset)
            syncs.append(pool.submit(_fsync_file, file))
        for one in syncs:
            one.result()
    for model in models:
        _set_locations(model, locations, folder)


def list_unset_initializers(model: ir.Model) -> list[ir.Value]:
    """The initializers of a graph whose values are not known yet."""
    return [value for value in model.graph.initializers.values() if value.const_value is None]


def _collect_entries(models: Sequence[ir.Model], source: WeightSource) -> list[TensorEntry]:
    """What the graphs lack, once each, in the order in which they ask for it."""
    entries = {entry.name: entry for model in models for entry in map(_to_entry, list_unset_initializers(model))}
    missing = [name for name in entries if name not in source]
    if missing:
        raise UserError(f"{source.folder} lacks the weight {missing[0]}; the model is incomplete.")
    return list(entries.values())


def _to_entry(value: ir.Value) -> TensorEntry:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    return TensorEntry(value.name, value.dtype, value.shape.numpy())


def _split_into_shards(entries: Iterable[TensorEntry]) -> list[list[TensorEntry]]:
    """Entries in shards; in each of them those come first that leave the next one aligned."""
    shards: list[list[TensorEntry]] = [[]]
    size = HEADER_BYTES
    for entry in entries:
        if shards[-1] and size + entry.nbytes > MAX_SHARD_BYTES:
            shards.append([])
            size = HEADER_BYTES
        shards[-1].append(entry)
        size += entry.nbytes
    return [sorted(shard, key=lambda entry: (entry.nbytes % ALIGNMENT != 0, -entry.itemsize)) for shard in shards]


def _write_shard(
    shard: Sequence[TensorEntry], source: WeightSource, file: Path, pool: ThreadPoolExecutor
) -> Iterator[tuple[TensorEntry, int]]:
    """Writes a shard; gives each tensor and its offset in the file once it is written."""
    with file.open("xb") as stream:
        stream.write(_build_header(shard))
        for entry, tensor in _materialize_ahead(shard, source, pool):
            offset = stream.tell()
            _write_tensor(entry, tensor, stream)
            yield entry, offset


def _materialize_ahead(
    shard: Sequence[TensorEntry], source: WeightSource, pool: ThreadPoolExecutor
) -> Iterator[tuple[TensorEntry, Tensor]]:
    """Every tensor of a shard in its order, a few being made while one is written."""
    pending: deque[tuple[TensorEntry, Future[Tensor]]] = deque()
    for entry in shard:
        pending.append((entry, pool.submit(source.materialize, entry.name)))
        if len(pending) == NUM_THREADS:
            first, made = pending.popleft()
            yield first, made.result()
    for entry, made in pending:
        yield entry, made.result()


def _fsync_file(file: Path) -> None:
    """Puts a file on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _build_header(shard: Sequence[TensorEntry]) -> bytes:
    """What a safetensors file begins with: a length, then dtype, shape and place of each tensor, and filling spaces."""
    tensors: dict[str, object] = {}
    end = 0
    for entry in shard:
        start, end = end, end + entry.nbytes
        tensors[entry.name] = {
            "dtype": STORAGE_DTYPES[entry.dtype][0],
            "shape": entry.stored_shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _write_tensor(entry: TensorEntry, tensor: Tensor, stream: BinaryIO) -> None:
    """Writes a tensor in the entry's dtype, cast piece by piece.

    Raises:
        ValueError: it has another number of elements.
    """
    if tensor.numel() != math.prod(entry.stored_shape):
        raise ValueError(f"{entry.name} is {tuple(tensor.shape)}, where the graph has {entry.shape}")
    for piece in tensor.flatten().split(CAST_CHUNK):
        content = memoryview(piece.to(STORAGE_DTYPES[entry.dtype][1]).view(torch.uint8).numpy())
        for start in range(0, len(content), WRITE_CHUNK_BYTES):
            stream.write(content[start : start + WRITE_CHUNK_BYTES])


def _set_locations(model: ir.Model, locations: dict[str, tuple[str, int]], folder: Path) -> None:
    """Points the initializers of a graph at where their values are."""
    for value in list_unset_initializers(model):
        entry = _to_entry(value)
        file, offset = locations[entry.name]
        value.const_value = ir.ExternalTensor(
            file, offset, entry.nbytes, entry.dtype, shape=ir.Shape(entry.shape), name=entry.name, base_dir=folder
        )
