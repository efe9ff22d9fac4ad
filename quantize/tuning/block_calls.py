"""Calls of a denoiser's blocks while the reference generates, on disk, and how they hang together.

Where a block reads what a block before it returned, to the very tensor, the call says so instead of holding it. Then
that input can be replaced by what the quantized block returned, whatever the class of the denoiser. All else that a
block reads is held as the reference had it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage.files import read_json_object, write_json
from ..compute_device import CPU, move_tensors
from ..torch_file import save_torch_file
from .calls import DenoiserCall, list_tensors, stack_output

LINK = "output of"  # the key of a stored argument that stands for a tensor which an earlier block returned


@dataclass(frozen=True)
class RecordedImage:
    """What the reference did for an image.

    Attributes:
        calls: Number of calls of the denoiser.
        flops: Operations of all of them.
        order: Paths of the blocks in the order in which they run.
    """

    calls: int
    flops: int
    order: list[str]


@dataclass(frozen=True)
class BlockFiles:
    """Where the calls of blocks are stored.

    Attributes:
        reference: What the reference's blocks read and returned.
        quantized: What the quantized blocks returned, with one scheme.
    """

    reference: Path
    quantized: Path

    def load_record(self, image: int) -> RecordedImage | None:
        """Returns what the reference did for an image; None if it is not finished."""
        file = self._record_file(image)
        return RecordedImage(**read_json_object(file)) if file.exists() else None

    def save_record(self, image: int, record: RecordedImage) -> None:
        write_json(vars(record), self._record_file(image))

    def call(self, image: int, call: int, block: str) -> Path:
        """What a block of the reference read and returned in a call of the denoiser."""
        return self.reference / f"{image:04d}-{call:03d}" / f"{block}.pt"

    def output(self, image: int, call: int, block: str) -> Path:
        """What the quantized block returned in that call."""
        return self.quantized / f"{image:04d}-{call:03d}" / f"{block}.pt"

    def _record_file(self, image: int) -> Path:
        return self.reference / f"{image:04d}.json"


@dataclass
class BlockRecorder:
    """Stores the first run of every block in each call of a denoiser.

    Attributes:
        files: Where calls are stored.
        image: The number of the image.
        calls: Calls of the denoiser until now.
        order: Paths of the blocks in the order in which they ran.
    """

    files: BlockFiles
    image: int
    calls: int = 0
    order: list[str] = field(default_factory=list)
    _outputs: dict[str, list[Tensor]] = field(default_factory=dict)

    def begin_call(self, *_: Any) -> None:
        self.calls += 1
        self._outputs = {}

    def make_hook(self, block: str, signature: inspect.Signature) -> Callable[..., None]:
        """Returns a hook that stores what a block read and returned."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if block in self._outputs:
                return
            arguments = {name: self._link(value) for name, value in signature.bind(*args, **kwargs).arguments.items()}
            self._outputs[block] = list_tensors(output)
            if block not in self.order:
                self.order.append(block)
            file = self.files.call(self.image, self.calls - 1, block)
            file.parent.mkdir(parents=True, exist_ok=True)
            content = move_tensors([arguments, stack_output(output)], CPU)
            save_torch_file(content, file)

        return hook

    def _link(self, value: Any) -> Any:
        """Replaces a tensor that a block returned by its place."""
        for block, tensors in self._outputs.items():
            for index, tensor in enumerate(tensors):
                if tensor is value:
                    return {LINK: [block, index]}
        return {key: self._link(entry) for key, entry in value.items()} if isinstance(value, dict) else value


@contextmanager
def record_blocks(denoiser: nn.Module, blocks: Sequence[str], recorder: BlockRecorder) -> Iterator[None]:
    """Records the blocks of a denoiser while it runs."""
    handles = [denoiser.register_forward_pre_hook(recorder.begin_call)]
    for block in blocks:
        module = denoiser.get_submodule(block)
        hook = recorder.make_hook(block, inspect.signature(module.forward))
        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def load_block_call(files: BlockFiles, image: int, call: int, block: str) -> DenoiserCall:
    """Loads a call of a block, with quantized blocks' outputs where it reads those of blocks; all are mapped."""
    arguments, output = torch.load(files.call(image, call, block), weights_only=True, mmap=True)

    def resolve(value: Any) -> Any:
        if isinstance(value, dict) and LINK in value:
            source, index = value[LINK]
            return torch.load(files.output(image, call, source), weights_only=True, mmap=True)[index]
        return {key: resolve(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    return DenoiserCall({name: resolve(value) for name, value in arguments.items()}, output, 0)


def save_output(files: BlockFiles, image: int, call: int, block: str, output: Any, dtype: torch.dtype) -> None:
    """Stores what a quantized block returned, in a dtype."""
    file = files.output(image, call, block)
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = [tensor.cpu() for tensor in list_tensors(output)]
    tensors = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors]
    save_torch_file(tensors, file)
