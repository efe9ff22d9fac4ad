"""Component folders of a diffusers pipeline: lazy reading from safetensors, streaming and atomic writing.

Only safetensors is read. A tensor is taken from disk when it is asked for, so that a reader's memory does not grow with
the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError
from .progress import Progress, silent

INDEX_SUFFIX = ".safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SHARD_BYTES = 1_000_000_000
# Of one element, in the words of safetensors.
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Stored:
    """A tensor on disk. dtype: in the words of safetensors."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * BYTES[self.dtype]


class Checkpoint:
    """The weights of one component folder, read lazily.

    With a `prefix`, only tensors whose names begin with it are seen, and without it.

    Raises:
        UserError: no folder, only pickled weights, a damaged or missing shard.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.prefix = prefix
        self.files = _weight_files(folder)
        found = {name: stored for file in self.files for name, stored in _stored(file)}
        self._where = {name.removeprefix(prefix): one for name, one in found.items() if name.startswith(prefix)}
        self._hidden = [one for name, one in found.items() if not name.startswith(prefix)]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        return list(self._where)

    def tensor(self, name: str) -> Tensor:
        """One tensor, as stored."""
        with opened(self._where[name].file) as file:
            tensor: Tensor = file.get_tensor(self.prefix + name)
            return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        return self._where[name].shape

    def nbytes(self, name: str) -> int:
        """Stored bytes of a tensor."""
        return self._where[name].nbytes

    def hidden(self) -> int:
        """Stored bytes of the tensors whose names do not begin with the prefix."""
        return sum(one.nbytes for one in self._hidden)

    def config(self) -> dict[str, Any]:
        """The component's config.json."""
        path = self.folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); the component folder needs its config.") from error
        if not isinstance(config, dict):
            raise UserError(f"{path} holds no JSON object; get a sound copy of the model.")
        return config

    def check_finite(self, progress: Progress = silent, stage: str = "checking weights") -> None:
        """Raises UserError, naming the tensor, where a weight is NaN or infinite."""
        for number, name in enumerate(self.names()):
            progress(stage, number, len(self.names()))
            tensor = self.tensor(name)
            # The extremes are not finite where any value is not; finding them takes no copy of a large tensor.
            if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, _extremes(tensor))):
                kind = "NaN" if torch.isnan(tensor).any() else "an infinite value"
                raise UserError(f"The weight {name} in {self._where[name].file} holds {kind}; get a sound copy.")
        progress(stage, len(self.names()), len(self.names()))

    def size(self) -> int:
        """Bytes of all weight files."""
        return sum(file.stat().st_size for file in self.files)


def _extremes(tensor: Tensor) -> tuple[float, float]:
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return float(low), float(high)


def _weight_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no component folder {folder}; the pipeline is incomplete.")
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if indexes:
        return _indexed_files(indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UserError(
            f"{folder} holds pickled weights ({pickles[0]}), which can run code and are not read; convert them by "
            "loading the model and calling save_pretrained(..., safe_serialization=True)."
        )
    raise UserError(f"{folder} holds no .safetensors file; the download is incomplete.")


def _indexed_files(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files = sorted({index.parent / name for name in weight_map.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index} is no weight index ({error}); get a sound copy of the model.") from error
    missing = [file for file in files if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing, though {index.name} names it; fetch it again.")
    return files


def opened(file: Path) -> Any:
    """A safetensors file, its tensors still on disk; a context manager.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or truncated ({error}); get it anew.") from error


def _stored(file: Path) -> Iterator[tuple[str, Stored]]:
    """All tensors of a file by name; nothing but its header is read."""
    with opened(file) as stored:
        for name in stored.keys():  # noqa: SIM118 - it has no other way to be walked through
            part = stored.get_slice(name)
            yield name, Stored(file, tuple(part.get_shape()), part.get_dtype())


def sha256(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---------------------------------------------------------------- writing


def written(path: Path, write: Callable[[Path], None]) -> None:
    """Has a file written under a temporary name, puts it on the disk, then renames it."""
    new = path.with_name(path.name + ".new")
    write(new)
    new.chmod(0o666 & ~_umask())  # safetensors lets nobody else read what it writes
    with new.open("rb+") as stream:
        os.fsync(stream.fileno())
    new.replace(path)


@cache
def _umask() -> int:
    """The rights that the process keeps from new files; it can be asked only by setting it."""
    found = os.umask(0)
    os.umask(found)
    return found


def write_json(content: Any, path: Path) -> None:
    """Writes JSON in one piece."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    written(path, lambda new: _write_text(text, new))


def write_tensors(tensors: dict[str, Tensor], path: Path, note: str = "pt") -> None:
    """Writes one safetensors file in one piece; equal tensors give equal bytes.

    `note` is kept under the metadata key `format` (with a second key the order of bytes would not be promised).
    """

    def write(new: Path) -> None:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, {"format": note})
        except SafetensorError as error:
            raise _cause(error, new) from error

    written(path, write)


def write_sharded(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, stem: str, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Streams tensors into shards of at most `shard_bytes` (one tensor may be larger) with an index where needed.

    Holds one shard in memory. Give names in a fixed order and equal tensors give equal files. The folder must be
    private to the caller until it is published: the shards get their final names once their number is known.
    """
    parts = [_write_part(shard, folder, number) for number, shard in enumerate(_shards(tensors, shard_bytes), 1)]
    names = [
        f"{stem}.safetensors" if len(parts) == 1 else f"{stem}-{number:05d}-of-{len(parts):05d}.safetensors"
        for number in range(1, len(parts) + 1)
    ]
    for (part, _, _), name in zip(parts, names, strict=True):
        part.replace(folder / name)
    if len(parts) > 1:
        weight_map = {tensor: name for (_, keys, _), name in zip(parts, names, strict=True) for tensor in keys}
        total = sum(size for _, _, size in parts)
        write_json({"metadata": {"total_size": total}, "weight_map": weight_map}, folder / f"{stem}{INDEX_SUFFIX}")
    return [folder / name for name in names]


def _write_part(shard: dict[str, Tensor], folder: Path, number: int) -> tuple[Path, list[str], int]:
    part = folder / f"part-{number:05d}.safetensors"
    write_tensors(shard, part)
    return part, list(shard), sum(tensor.nbytes for tensor in shard.values())


def _shards(tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _cause(error: SafetensorError, path: Path) -> Exception:
    """The error of the system that safetensors wraps in its own, such as a full disk."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), str(path)) if code else error


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")
