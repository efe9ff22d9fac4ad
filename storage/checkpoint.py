"""Weights of a pipeline's components: lazy reading from safetensors, and streaming writing.

Only safetensors files are read. A tensor is loaded when it is used, so memory does not grow with the model.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from .files import atomic_write, write_json

INDEX_SUFFIX = ".safetensors.index.json"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_SHARD_BYTES = 1_000_000_000
# Bytes of one element, by safetensors' names of dtypes.
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor on disk.

    Attributes:
        file: The safetensors file.
        shape: The tensor's shape.
        dtype: The tensor's dtype as safetensors calls it, such as `BF16`.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class Checkpoint:
    """The weights of one component folder, read lazily.

    Args:
        folder: The component's folder.
        prefix: Only tensors whose names begin with it are visible, under their names without it.

    Raises:
        UserError: The folder is missing, has only pickled weights, or a shard is missing or corrupt.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.prefix = prefix
        self.files = _find_weight_files(folder)
        infos = {name: info for file in self.files for name, info in _read_tensor_infos(file)}
        self._infos = {name.removeprefix(prefix): info for name, info in infos.items() if name.startswith(prefix)}
        self._ignored = [info for name, info in infos.items() if not name.startswith(prefix)]

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def names(self) -> list[str]:
        """The names of all visible tensors."""
        return list(self._infos)

    def load_tensor(self, name: str) -> Tensor:
        """Loads a tensor as stored."""
        with open_safetensors(self._infos[name].file) as file:
            tensor: Tensor = file.get_tensor(self.prefix + name)
            return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._infos[name].shape

    def nbytes(self, name: str) -> int:
        """The size of a tensor on disk, in bytes."""
        return self._infos[name].nbytes

    def ignored_bytes(self) -> int:
        """The size on disk of all tensors whose names do not begin with the prefix, in bytes."""
        return sum(info.nbytes for info in self._ignored)

    def load_config(self) -> dict[str, Any]:
        """Loads the component's config.json.

        Raises:
            UserError: It is missing or corrupt.
        """
        path = self.folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}). Download the model again.") from error
        if not isinstance(config, dict):
            raise UserError(f"{path} does not contain a JSON object. Download the model again.")
        return config

    def check_finite(self, progress: Progress = no_progress, stage: str = "checking weights") -> None:
        """Checks all weights for NaN and infinite values.

        Raises:
            UserError: A weight contains one.
        """
        for number, name in enumerate(self.names()):
            progress(stage, number, len(self.names()))
            tensor = self.load_tensor(name)
            # Minimum and maximum are not finite if any value is not. Computing them takes no copy of a large tensor.
            if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, _min_max(tensor))):
                kind = "NaN" if torch.isnan(tensor).any() else "an infinite value"
                raise UserError(
                    f"Weight {name!r} in {self._infos[name].file} contains {kind}. Download the model again."
                )
        progress(stage, len(self.names()), len(self.names()))

    def file_bytes(self) -> int:
        """The size of all weight files in bytes."""
        return sum(file.stat().st_size for file in self.files)


def _min_max(tensor: Tensor) -> tuple[float, float]:
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return float(low), float(high)


def _find_weight_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no component folder {folder}. Download the model again.")
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if indexes:
        return _read_index(indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickles = [path.name for pattern in PICKLE_PATTERNS for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UserError(
            f"{folder} has only pickled weights ({pickles[0]}), which are not loaded because they can run code. "
            "Convert them: load the model and call save_pretrained(..., safe_serialization=True)."
        )
    raise UserError(f"{folder} has no .safetensors file. Download the model again.")


def _read_index(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files = sorted({index.parent / name for name in weight_map.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index} is corrupt ({error}). Download the model again.") from error
    missing = [file for file in files if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing, but {index.name} lists it. Download it again.")
    return files


def open_safetensors(file: Path) -> Any:
    """Opens a safetensors file without loading its tensors, as a context manager.

    Raises:
        UserError: The file is corrupt.
    """
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{file} is corrupt or truncated ({error}). Download it again.") from error


def _read_tensor_infos(file: Path) -> Iterator[tuple[str, TensorInfo]]:
    """All tensors of a file by name; only the file's header is read."""
    with open_safetensors(file) as header:
        for name in header.keys():  # noqa: SIM118  it is not iterable
            tensor_slice = header.get_slice(name)
            yield name, TensorInfo(file, tuple(tensor_slice.get_shape()), tensor_slice.get_dtype())


# ---------------------------------------------------------------- writing


def write_tensors(tensors: dict[str, Tensor], path: Path, format_tag: str = "pt") -> None:
    """Writes a safetensors file in one piece. Equal tensors give equal bytes.

    Args:
        tensors: The tensors by name.
        path: The file to write.
        format_tag: The value of the metadata key `format`. It may hold any text: with a second metadata key, the order
            of bytes would not be deterministic.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": format_tag}
            )
        except SafetensorError as error:
            raise _unwrap_os_error(error, temporary) from error

    atomic_write(path, write)


def write_sharded(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, stem: str, shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Streams tensors into safetensors shards, with an index if there is more than one.

    One shard is held in memory. Equal tensors in equal order give equal files. No other process may use the folder
    until it is published: shards get their final names once their number is known.

    Args:
        tensors: Names and tensors in a fixed order.
        folder: The folder to write to.
        stem: What the names of the files begin with, such as `model`.
        shard_bytes: The maximum size of a shard in bytes; a larger tensor gets a shard of its own.

    Returns:
        The files in order.
    """
    shards = [
        _write_shard(shard, folder, number) for number, shard in enumerate(_split_into_shards(tensors, shard_bytes), 1)
    ]
    names = [
        f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    for (file, _, _), name in zip(shards, names, strict=True):
        file.replace(folder / name)
    if len(shards) > 1:
        weight_map = {tensor: name for (_, keys, _), name in zip(shards, names, strict=True) for tensor in keys}
        total = sum(size for _, _, size in shards)
        write_json({"metadata": {"total_size": total}, "weight_map": weight_map}, folder / f"{stem}{INDEX_SUFFIX}")
    return [folder / name for name in names]


def _write_shard(shard: dict[str, Tensor], folder: Path, number: int) -> tuple[Path, list[str], int]:
    file = folder / f"part-{number:05d}.safetensors"
    write_tensors(shard, file)
    return file, list(shard), sum(tensor.nbytes for tensor in shard.values())


def _split_into_shards(tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _unwrap_os_error(error: SafetensorError, path: Path) -> Exception:
    """The OSError that safetensors wraps, such as that of a full disk."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), str(path)) if code else error
