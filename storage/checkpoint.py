"""Weights of a pipeline's components: lazy reading from safetensors, and streaming writing.

Only safetensors files are read. A tensor is loaded when it is used, so memory does not grow with the model.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from .atomic_file import atomic_write
from .files import read_json_object, write_json
from .recovery import advise_recovery
from .safetensors_header import read_tensor_headers
from .weight_files import INDEX_SUFFIX, WeightFiles, select_weight_files
from .weight_formats import CAST_DTYPES, require_supported

if TYPE_CHECKING:  # headers are read without torch
    import torch
    from safetensors import SafetensorError
    from torch import Tensor

MAX_SHARD_BYTES = 1_000_000_000
MAX_OPEN_BYTES = 2**26  # read before a file is opened again: until it is closed, what was read counts as memory
# What torch adds wherever it wrapped a module: torch.compile, activation checkpointing, FSDP.
INNER_PREFIXES = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
# What wrappers add to all names: DistributedDataParallel, peft, ComfyUI, averages of weights.
WRAPPER_PREFIXES = ("module.", "base_model.model.", "model.diffusion_model.", "diffusion_model.", "ema_model.", "ema.")
# What training scripts add, which name the component in the module that they save. Classes of the other library may
# have such names themselves.
COMPONENT_PREFIXES = {"diffusers": ("transformer.", "unet.", "vae."), "transformers": ("text_encoder.",)}

TensorChange = Callable[["Tensor"], "Tensor"]
"""Returns a changed tensor of the same shape and dtype."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor on disk.

    Attributes:
        file: The safetensors file.
        stored_name: The tensor's name in the file.
        shape: The tensor's shape.
        dtype: The tensor's dtype as safetensors calls it, such as `BF16`.
        nbytes: Size in bytes.
    """

    file: Path
    stored_name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class Checkpoint:
    """The weights of one component folder, read lazily.

    They are those that the library of the component's class loads, tensor by tensor as the index says. Prefixes that
    wrappers of training and compilation left in the names are removed. Plain float8 is read as bfloat16.

    Args:
        folder: The component's folder.
        prefix: If the names of any tensors begin with it, only these are visible, under their names without it.

    Attributes:
        folder: The component's folder.
        weight_files: The files and what else is in the folder.
        files: The weight files.
        prefix: What was removed from the names; empty if no name begins with the given prefix.
        wrapper_prefixes: What wrappers had added to the names, such as `_orig_mod.`.
        doubles: Names of tensors that a second file of the index holds too. The one in the listed file is read.
        changes: How tensors are changed when they are loaded, by name; see `with_changes`.

    Raises:
        UserError: The folder is missing, has only pickled weights, or a shard is missing or corrupt.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.weight_files = select_weight_files(folder)
        self.files = self.weight_files.files
        stored, self.doubles = _collect_tensor_infos(self.weight_files)
        infos, self.wrapper_prefixes = _remove_wrapper_prefixes(stored, self.weight_files)
        self.prefix = prefix if any(name.startswith(prefix) for name in infos) else ""
        self._infos = {name.removeprefix(self.prefix): i for name, i in infos.items() if name.startswith(self.prefix)}
        self._ignored = {name: info for name, info in infos.items() if not name.startswith(self.prefix)}
        self.changes: Mapping[str, TensorChange] = {}

    def with_changes(self, changes: Mapping[str, TensorChange]) -> Checkpoint:
        """Returns the same checkpoint, some of whose tensors are changed whenever they are loaded."""
        changed = copy.copy(self)
        changed.changes = changes
        return changed

    @property
    def is_plain(self) -> bool:
        """Whether diffusers and transformers load the same tensors from the folder without help."""
        dtypes = {info.dtype for info in self._infos.values()}
        unusual = self.weight_files.variant or self.wrapper_prefixes or self.doubles or self.changes
        return not (unusual or dtypes & set(CAST_DTYPES))

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def names(self) -> list[str]:
        """The names of all visible tensors."""
        return list(self._infos)

    def ignored_names(self) -> list[str]:
        """The names of all tensors that do not begin with the prefix."""
        return list(self._ignored)

    def rename(self, names: Mapping[str, str]) -> Checkpoint:
        """Returns the same weights under other names.

        Args:
            names: New names by the present ones; names that are not listed stay.
        """
        renamed = copy.copy(self)
        renamed._infos = {names.get(name, name): info for name, info in self._infos.items()}
        return renamed

    def load_tensor(self, name: str) -> Tensor:
        """Loads a tensor as stored, or as changed; plain float8 becomes bfloat16, which holds it exactly."""
        with open_safetensors(self._infos[name].file) as file:
            return self._read_tensor(file, name)

    def load_tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Loads tensors as `load_tensor` does, one after another; small ones without opening their file for each."""
        for group in self._group_by_file(names):
            with open_safetensors(self._infos[group[0]].file) as file:
                for name in group:
                    yield name, self._read_tensor(file, name)

    def _group_by_file(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Yields consecutive names whose tensors are in one file and together not larger than `MAX_OPEN_BYTES`."""
        group: list[str] = []
        size = 0
        for name in names:
            size += self.nbytes(name)
            if group and (self._infos[name].file != self._infos[group[0]].file or size > MAX_OPEN_BYTES):
                yield group
                group, size = [], self.nbytes(name)
            group.append(name)
        if group:
            yield group

    def _read_tensor(self, file: Any, name: str) -> Tensor:
        import torch

        info = self._infos[name]
        tensor: Tensor = file.get_tensor(info.stored_name)
        tensor = tensor.to(torch.bfloat16) if info.dtype in CAST_DTYPES else tensor
        return self.changes[name](tensor) if name in self.changes else tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._infos[name].shape

    def dtype(self, name: str) -> str:
        """The dtype of a tensor on disk, as safetensors calls it."""
        return self._infos[name].dtype

    def nbytes(self, name: str) -> int:
        """The size of a tensor on disk, in bytes."""
        return self._infos[name].nbytes

    def ignored_bytes(self) -> int:
        """The size on disk of all tensors whose names do not begin with the prefix, in bytes."""
        return sum(info.nbytes for info in self._ignored.values())

    def require_supported(self, config: Mapping[str, Any] | None = None) -> None:
        """Checks that all tensors are in a format that is read, from their names and dtypes alone.

        Args:
            config: The component's config.json, whose `quantization_config` counts as well.

        Raises:
            UserError: A tensor has an unknown dtype, or belongs to quantized weights or a LoRA.
        """
        infos = self._infos | self._ignored
        require_supported(self.folder, {name: info.dtype for name, info in infos.items()}, config)

    def load_config(self) -> dict[str, Any]:
        """Loads the component's config.json.

        Raises:
            UserError: It is missing or corrupt.
        """
        return read_json_object(self.folder / "config.json")

    def check_finite(
        self,
        dtype: torch.dtype | None = None,
        progress: Progress = no_progress,
        stage: str = "checking weights",
    ) -> None:
        """Checks all weights for NaN, for infinite values, and for values that become infinite when they are used.

        Args:
            dtype: The dtype that weights are cast to; None: float32.
            progress: Called with tensors.
            stage: The name of the stage that progress is reported under.

        Raises:
            UserError: A weight contains one.
        """
        import torch

        dtype = dtype or torch.float32
        for number, (name, tensor) in enumerate(self.load_tensors(self.names())):
            progress(stage, number, len(self.names()))
            if tensor.is_floating_point() and tensor.numel():
                # Minimum and maximum are not finite if any value is not. They take no copy of a large tensor.
                extremes = _min_max(tensor)
                if not all(map(math.isfinite, extremes)):
                    kind = "NaN" if torch.isnan(tensor).any() else "an infinite value"
                    raise UserError(
                        f"Weight {name!r} in {self._infos[name].file} contains {kind}. {advise_recovery(self.folder)}"
                    )
                if not torch.tensor(extremes, dtype=torch.float64).to(dtype).isfinite().all():
                    is_widest = dtype is torch.float32
                    advice = advise_recovery(self.folder) if is_widest else "Set dtype: float32 in the recipe."
                    raise UserError(
                        f"Weight {name!r} in {self._infos[name].file} contains {max(map(abs, extremes)):.4g}, which is "
                        f"infinite in {str(dtype).removeprefix('torch.')}. {advice}"
                    )
        progress(stage, len(self.names()), len(self.names()))

    def file_bytes(self) -> int:
        """The size of all weight files in bytes."""
        return sum(file.stat().st_size for file in self.files)


def _min_max(tensor: Tensor) -> tuple[float, float]:
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return float(low), float(high)


def open_safetensors(file: Path) -> Any:
    """Opens a safetensors file without loading its tensors, as a context manager.

    Raises:
        UserError: The file is corrupt.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{file} is corrupt or truncated ({error}). {advise_recovery(file)}") from error


def _collect_tensor_infos(weight_files: WeightFiles) -> tuple[dict[str, TensorInfo], list[str]]:
    """All tensors by their stored names, and the names that a second file holds too; only headers are read.

    Raises:
        UserError: A file is corrupt, or lacks a tensor that the index says it has.
    """
    infos: dict[str, TensorInfo] = {}
    doubles = []
    for file in weight_files.files:
        for header in read_tensor_headers(file):
            if header.name in infos:
                doubles.append(header.name)
            if weight_files.locations.get(header.name, file) == file:
                infos[header.name] = TensorInfo(file, header.name, header.shape, header.dtype, header.nbytes)
            elif header.name not in infos:
                doubles.append(header.name)
    for name, file in weight_files.locations.items():
        if name not in infos:
            raise UserError(
                f"{weight_files.index} says that {file.name} has the tensor {name!r}, but it has not. "
                f"{advise_recovery(file)}"
            )
    return infos, sorted(set(doubles))


def _remove_wrapper_prefixes(
    infos: dict[str, TensorInfo], weight_files: WeightFiles
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Removes from names what wrappers of a model have added to them, and returns what was removed.

    Raises:
        UserError: Two tensors have the same name then.
    """
    removed = [prefix for prefix in INNER_PREFIXES if any(prefix in name for name in infos)]
    names = {name: _remove_all(name, removed) for name in infos}
    prefixes = (*WRAPPER_PREFIXES, *COMPONENT_PREFIXES[weight_files.library])
    while prefix := next((p for p in prefixes if names and all(n.startswith(p) for n in names.values())), None):
        names = {name: new.removeprefix(prefix) for name, new in names.items()}
        removed.append(prefix)
    if len(set(names.values())) < len(names):
        counts = Counter(names.values())
        double = next(new for new in names.values() if counts[new] > 1)
        raise UserError(
            f"{weight_files.folder} holds the weight {double!r} twice, with and without {removed[0]!r} in its name. "
            "Remove one of the two."
        )
    return {names[name]: info for name, info in infos.items()}, tuple(removed)


def _remove_all(text: str, parts: Iterable[str]) -> str:
    for part in parts:
        text = text.replace(part, "")
    return text


# ---------------------------------------------------------------- writing


def write_tensors(tensors: dict[str, Tensor], path: Path, format_tag: str = "pt") -> None:
    """Writes a safetensors file in one piece. Equal tensors give equal bytes.

    Args:
        tensors: The tensors by name, on any device.
        path: The file to write.
        format_tag: The value of the metadata key `format`. It may hold any text: with a second metadata key, the order
            of bytes would not be deterministic.
    """

    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        try:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, {"format": format_tag}
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
