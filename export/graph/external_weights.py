"""A component's weights beside its graphs: streamed into safetensors shards that initializers point into.

Initializers' names, shapes and dtypes decide what is written. Few tensors are in memory at once: the one being written,
and the next ones, which other threads prepare meanwhile.
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
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...storage.checkpoint import MAX_SHARD_BYTES, Checkpoint
from ...storage.files import FileRecord, record_file
from ...storage.recovery import advise_recovery
from .int4_operands import has_symmetric_zero_points, to_matmul_nbits_operand
from .int8_operands import Int8Tensors, dequantize_int8, to_int8_operand

WIDEST_SCALE = 4  # bytes
INT4_TENSORS = 3  # of a layer: codes, scales and zero points
TENSOR_OVERHEAD = 320  # bytes of an entry in a header, and of the room up to the next tensor
ALIGNMENT = 64  # bytes: a cache line, and no vector register is wider
HEADER_BYTES = 2**20  # upper bound for the header of a shard
CAST_CHUNK = 2**22  # elements that are cast at once
# Bytes per write, as cp does: with 4 MiB the kernel (6.18, ext4) took four times as long for its pages.
WRITE_CHUNK_BYTES = 2**17
NUM_THREADS = 3  # that prepare tensors while others are written, or wait for the disk
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
Int8OperandLayout = Callable[[Int8Tensors, str], Tensor]


@dataclass(frozen=True)
class Int4Layout:
    """Layout of an INT4 linear layer.

    Attributes:
        shape: (outputs, inputs).
        block_size: Inputs per block.
        has_zero_points: Whether any zero point is not 8.
    """

    shape: tuple[int, int]
    block_size: int
    has_zero_points: bool


@dataclass(frozen=True)
class Int8Layout:
    """Layout of an INT8 linear layer.

    Attributes:
        shape: (outputs, inputs).
        input_scale: Static scale of its activations; None for a dynamic scale per token.
    """

    shape: tuple[int, int]
    input_scale: float | None


class WeightSource:
    """Provides a component's tensors under the names that graphs use.

    Args:
        checkpoint: The component's weights.
        solution: An alternative quantization. Modules that it contains are taken from it alone.
        to_operand: Converts INT4 tensors to the layout of the operator that reads them.
        to_int8_operand: Converts INT8 tensors likewise.

    Attributes:
        folder: The component folder.
        int4_linears: Layouts of INT4 linear layers by name.
        int8_linears: Layouts of INT8 linear layers by name.
        int8_convolutions: Shapes of the weights of INT8 convolutions by name.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        solution: Checkpoint | None = None,
        to_operand: OperandLayout = to_matmul_nbits_operand,
        to_int8_operand: Int8OperandLayout = to_int8_operand,
    ) -> None:
        self.folder, self._to_operand, self._to_int8_operand = checkpoint.folder, to_operand, to_int8_operand
        solution_tensors = dict.fromkeys(solution.names(), solution) if solution else {}
        replaced = {_get_module_name(name) for name in solution_tensors}
        unchanged = {name: checkpoint for name in checkpoint.names() if _get_module_name(name) not in replaced}
        self._checkpoints = unchanged | solution_tensors
        linears = [_get_module_name(name) for name in self._checkpoints if name.endswith(".qweight")]
        self.int4_linears = {name: self._describe_int4(name) for name in linears if not self._is_int8(name)}
        self.int8_linears = {name: self._describe_int8(name) for name in linears if self._is_int8(name)}
        rows = [_get_module_name(name) for name in self._checkpoints if name.endswith(".codes")]
        shapes = {name: self._get_shape(f"{name}.codes") for name in rows}
        self.int8_convolutions = {name: shape for name, shape in shapes.items() if len(shape) > 2}

    @property
    def quantized_linears(self) -> dict[str, Int4Layout | Int8Layout]:
        """Layouts of all quantized linear layers by name."""
        return {**self.int4_linears, **self.int8_linears}

    @property
    def has_zero_points(self) -> bool:
        """Whether any INT4 linear layer has a zero point that is not 8."""
        return any(layout.has_zero_points for layout in self.int4_linears.values())

    def get_embedding_dtype(self, embedding: str) -> ir.DataType:
        """Returns the dtype in which an embedding is stored. INT8 has one scale per row."""
        name = f"{embedding}.weight"
        return FLOAT_DTYPES[self.load_tensor(name).dtype] if name in self._checkpoints else ir.DataType.INT8

    def estimate_bytes(self, float_bytes: int, has_int4: bool, has_int8: bool, unused: tuple[str, ...] = ()) -> int:
        """Estimates what the weights take beside graphs, from headers; never too little.

        Args:
            float_bytes: Bytes of a float.
            has_int4: Whether graphs multiply with INT4 codes, rather than with floats made of them.
            has_int8: The same of INT8.
            unused: What the names of weights begin with that no graph reads.
        """
        total = 0
        for layout in self.quantized_linears.values():
            size = math.prod(layout.shape)
            if isinstance(layout, Int8Layout):
                total += size + layout.shape[0] * WIDEST_SCALE if has_int8 else size * float_bytes
            else:
                blocks = layout.shape[0] * math.ceil(layout.shape[1] / layout.block_size)
                total += size // 2 + blocks * (WIDEST_SCALE + 1) if has_int4 else size * float_bytes
            total += TENSOR_OVERHEAD * INT4_TENSORS
        for name in self._checkpoints:
            is_code = name.endswith(".codes") and (has_int8 or _get_module_name(name) not in self.int8_convolutions)
            is_of_linear = _get_module_name(name) in self.quantized_linears and not name.endswith(".bias")
            if not is_of_linear and not name.startswith(unused):
                total += math.prod(self._get_shape(name)) * (1 if is_code else float_bytes) + TENSOR_OVERHEAD
        return total

    def __contains__(self, name: str) -> bool:
        """Whether `materialize` can provide a tensor."""
        return name in self._checkpoints or self._is_quantized(name)

    def load_tensor(self, name: str) -> Tensor:
        """Returns a tensor as stored. It is mapped from the file, and read only when used."""
        return self._checkpoints[name].load_tensor(name)

    def materialize(self, name: str) -> Tensor:
        """Returns what a graph calls `name`: a tensor as stored, a dequantized weight, or an operand."""
        if not self._is_quantized(name):
            return self.load_tensor(name)
        layer, _, kind = name.rpartition(".")
        if layer in self.int8_convolutions:
            return dequantize_rows(Int8Rows(*self._load_layer(layer, Int8Rows._fields)))
        if layer in self.int8_linears:
            tensors = Int8Tensors(*self._load_layer(layer, Int8Tensors._fields))
            return dequantize_int8(tensors) if kind == "weight" else self._to_int8_operand(tensors, kind)
        awq_tensors = AwqTensors(*self._load_layer(layer, AwqTensors._fields))
        return dequantize_awq(awq_tensors) if kind == "weight" else self._to_operand(awq_tensors, kind)

    def _load_layer(self, layer: str, kinds: Sequence[str]) -> list[Tensor]:
        return [self.load_tensor(f"{layer}.{kind}") for kind in kinds]

    def _is_quantized(self, name: str) -> bool:
        """Whether a name is that of a quantized layer's weight, or of a quantized linear's operand."""
        layer, _, kind = name.rpartition(".")
        if layer in self.int8_convolutions:
            return kind == "weight"  # codes and scales are as stored
        return kind != "bias" and (layer in self.int4_linears or layer in self.int8_linears)

    def _is_int8(self, linear: str) -> bool:
        """Whether each code has a byte; otherwise eight share an int32."""
        outputs = self._get_shape(f"{linear}.scales")[1]
        return self._get_shape(f"{linear}.qweight")[1] == outputs

    def _describe_int8(self, linear: str) -> Int8Layout:
        inputs, outputs = self._get_shape(f"{linear}.qweight")
        scale = f"{linear}.input_scale"
        return Int8Layout((outputs, inputs), float(self.load_tensor(scale)) if scale in self._checkpoints else None)

    def _describe_int4(self, linear: str) -> Int4Layout:
        groups, outputs = self._get_shape(f"{linear}.scales")
        inputs, _ = self._get_shape(f"{linear}.qweight")
        has_zero_points = not has_symmetric_zero_points(self.load_tensor(f"{linear}.qzeros"))
        return Int4Layout((outputs, inputs), inputs // groups, has_zero_points)

    def _get_shape(self, name: str) -> tuple[int, ...]:
        return self._checkpoints[name].shape(name)


def _get_module_name(tensor: str) -> str:
    return tensor.rpartition(".")[0]


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class TensorEntry:
    """A tensor that graphs read.

    Attributes:
        name: Name of the initializer.
        dtype: Dtype in the graph.
        shape: Shape in the graph.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in safetensors, which has no 4-bit dtypes: two values share a byte."""
        return (*self.shape[:-1], self.shape[-1] // 2) if self.dtype == ir.DataType.INT4 else self.shape

    @property
    def itemsize(self) -> int:
        """Bytes per stored element."""
        return STORAGE_DTYPES[self.dtype][1].itemsize

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return math.prod(self.stored_shape) * self.itemsize


def write_external_data(
    models: Sequence[ir.Model], source: WeightSource, folder: Path, name: str, progress: Progress = no_progress
) -> list[FileRecord]:
    """Writes the weights that a component's graphs read into shards, and points the graphs at them.

    Shards are named NAME-00001-of-0000N.safetensors and hold at most 1e9 bytes; a larger tensor has a shard of its own.
    Tensors begin at multiples of 64 bytes. The few whose size is no such multiple come last, at multiples of their
    element size.

    Args:
        models: All graphs of one component.
        source: The component's weights.
        folder: Folder of the shards.
        name: Prefix of the shards' names.
        progress: Called with bytes.

    Returns:
        The shards. Each is hashed while the next one is written.

    Raises:
        UserError: The component lacks a tensor.
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
            syncs.append(pool.submit(_sync_and_record, file))
        records = [sync.result() for sync in syncs]
    for model in models:
        _set_locations(model, locations, folder)
    return records


def list_unset_initializers(model: ir.Model) -> list[ir.Value]:
    """Returns the initializers of a graph that have no value yet."""
    return [value for value in model.graph.initializers.values() if value.const_value is None]


def _collect_entries(models: Sequence[ir.Model], source: WeightSource) -> list[TensorEntry]:
    """Returns each tensor that graphs read once, in the order of their first use."""
    values = (value for model in models for value in list_unset_initializers(model))
    entries = {entry.name: entry for entry in map(_to_entry, values)}
    missing = [name for name in entries if name not in source]
    if missing:
        raise UserError(f"Weight {missing[0]!r} is missing from {source.folder}. {advise_recovery(source.folder)}")
    return list(entries.values())


def _to_entry(value: ir.Value) -> TensorEntry:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    return TensorEntry(value.name, value.dtype, value.shape.numpy())


def _split_into_shards(entries: Iterable[TensorEntry]) -> list[list[TensorEntry]]:
    """Splits entries into shards. In each, those that leave the next one aligned come first."""
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
    """Writes a shard, and yields each tensor with its offset in the file once it is written."""
    with file.open("xb") as stream:
        stream.write(_build_header(shard))
        for entry, tensor in _materialize_ahead(shard, source, pool):
            offset = stream.tell()
            _write_tensor(entry, tensor, stream)
            yield entry, offset


def _materialize_ahead(
    shard: Sequence[TensorEntry], source: WeightSource, pool: ThreadPoolExecutor
) -> Iterator[tuple[TensorEntry, Tensor]]:
    """Yields the tensors of a shard in order, and prepares the next few meanwhile."""
    pending: deque[tuple[TensorEntry, Future[Tensor]]] = deque()
    for entry in shard:
        pending.append((entry, pool.submit(source.materialize, entry.name)))
        if len(pending) == NUM_THREADS:
            first, future = pending.popleft()
            yield first, future.result()
    for entry, future in pending:
        yield entry, future.result()


def _sync_and_record(file: Path) -> FileRecord:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return record_file(file.parent, file.name)


def _build_header(shard: Sequence[TensorEntry]) -> bytes:
    """Returns the header of a safetensors file: its length, dtype, shape and offsets of each tensor, and padding."""
    tensors: dict[str, object] = {}
    end = 0
    for entry in shard:
        start, end = end, end + entry.nbytes
        dtype, _ = STORAGE_DTYPES[entry.dtype]
        tensors[entry.name] = {"dtype": dtype, "shape": entry.stored_shape, "data_offsets": [start, end]}
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _write_tensor(entry: TensorEntry, tensor: Tensor, stream: BinaryIO) -> None:
    """Writes a tensor in the entry's dtype, cast in chunks.

    Raises:
        ValueError: The tensor has another number of elements.
    """
    if tensor.numel() != math.prod(entry.stored_shape):
        raise ValueError(f"{entry.name} has the shape {tuple(tensor.shape)}, but the graph expects {entry.shape}")
    for chunk in tensor.flatten().split(CAST_CHUNK):
        content = memoryview(chunk.to(STORAGE_DTYPES[entry.dtype][1]).view(torch.uint8).numpy())
        for start in range(0, len(content), WRITE_CHUNK_BYTES):
            stream.write(content[start : start + WRITE_CHUNK_BYTES])


def _set_locations(model: ir.Model, locations: dict[str, tuple[str, int]], folder: Path) -> None:
    """Points the initializers of a graph at their values in the shards."""
    for value in list_unset_initializers(model):
        entry = _to_entry(value)
        file, offset = locations[entry.name]
        value.const_value = ir.ExternalTensor(
            file, offset, entry.nbytes, entry.dtype, shape=ir.Shape(entry.shape), name=entry.name, base_dir=folder
        )
