"""Calls of a denoiser: recorded while a pipeline generates, stored, split into samples and joined into batches.

Whatever the class of the denoiser, the arguments of a call are containers of tensors. A tensor whose first dimension
counts the samples, and a list with an entry for each of them, belong to the samples; everything else to the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compute_device import CPU, move_tensors
from ..torch_file import save_torch_file


@dataclass(frozen=True)
class DenoiserCall:
    """One call of a denoiser.

    Attributes:
        arguments: Arguments by parameter name.
        output: The velocities that it returned, (samples, ...).
        step: The number of the call in its image, from 0.
    """

    arguments: Mapping[str, Any]
    output: Tensor
    step: int

    @property
    def num_samples(self) -> int:
        return len(self.output)


@contextmanager
def record_calls(denoiser: nn.Module) -> Iterator[list[DenoiserCall]]:
    """Records every call of a denoiser. Afterwards, the denoiser is as it was before."""
    calls: list[DenoiserCall] = []
    forward, signature = denoiser.forward, inspect.signature(denoiser.forward)

    def record(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        calls.append(DenoiserCall(arguments, stack_output(output).clone(), len(calls)))
        return output

    denoiser.forward = record
    try:
        yield calls
    finally:
        denoiser.forward = forward


def list_tensors(output: Any) -> list[Tensor]:
    """Lists the tensors that a module returned: one, a tuple, or the fields of an output of diffusers."""
    if isinstance(output, Tensor):
        return [output]
    entries = output.values() if isinstance(output, Mapping) else output
    return [entry for entry in entries if isinstance(entry, Tensor)]


def stack_output(output: Any) -> Tensor:
    """Returns what a module returned as one tensor, (samples, ...).

    A list in the first place has an entry for each sample. Several tensors are flattened and joined.
    """
    if not isinstance(output, Tensor | Mapping) and isinstance(output[0], list):
        return torch.stack(output[0])
    tensors = list_tensors(output)
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten(1) for tensor in tensors], 1)


def to_float32(value: Any, device: torch.device = CPU) -> Any:
    """Returns arguments of a call on a device, with all floating-point tensors in float32."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)
    if isinstance(value, Mapping):
        return {key: to_float32(entry, device) for key, entry in value.items()}
    return [to_float32(entry, device) for entry in value] if isinstance(value, list) else value


def save_calls(calls: Sequence[DenoiserCall], file: Path) -> None:
    """Stores calls. A tensor that several of them share is stored once."""
    content = move_tensors([[dict(call.arguments), call.output, call.step] for call in calls], CPU)
    save_torch_file(content, file)


def load_calls(file: Path) -> list[DenoiserCall]:
    """Loads calls; their tensors are mapped from the file, and read only when used."""
    content = torch.load(file, weights_only=True, mmap=True)
    return [DenoiserCall(arguments, output, step) for arguments, output, step in content]


def split_call(call: DenoiserCall) -> list[DenoiserCall]:
    """Splits a call into one for each of its samples."""
    size = call.num_samples
    if size == 1:
        return [call]
    return [
        DenoiserCall(
            {name: _select_sample(value, index, size) for name, value in call.arguments.items()},
            call.output[index : index + 1],
            call.step,
        )
        for index in range(size)
    ]


def join_calls(calls: Sequence[DenoiserCall]) -> list[tuple[DenoiserCall, list[int]]]:
    """Joins neighbouring calls of one sample each into as few as their arguments allow.

    Returns:
        Each joined call, with the steps of its samples. That of the call is the first one's.
    """
    groups: list[list[DenoiserCall]] = []
    for call in calls:
        if groups and _can_join(groups[-1][0], call):
            groups[-1].append(call)
        else:
            groups.append([call])
    return [(_join(group), [call.step for call in group]) for group in groups]


def _select_sample(value: Any, index: int, size: int) -> Any:
    if isinstance(value, Tensor | list):
        return value[index : index + 1] if _belongs_to_samples(value, size) else value
    if isinstance(value, dict):
        return {key: _select_sample(entry, index, size) for key, entry in value.items()}
    return value


def _belongs_to_samples(value: Any, size: int) -> bool:
    """Whether a tensor or list has an entry for each of `size` samples."""
    return (value.ndim > 0 if isinstance(value, Tensor) else True) and len(value) == size


def _can_join(first: DenoiserCall, second: DenoiserCall) -> bool:
    return (
        first.arguments.keys() == second.arguments.keys()
        and first.output.shape == second.output.shape
        and all(_values_join(value, second.arguments[name]) for name, value in first.arguments.items())
    )


def _values_join(first: Any, second: Any) -> bool:
    """Whether two arguments of calls of one sample each can be those of one call."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        return _belongs_to_samples(first, 1) or torch.equal(first, second)
    if isinstance(first, list):
        return len(first) == len(second) == 1 or _all_join(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and _all_join(first.values(), [second[key] for key in first])
    return bool(first == second)


def _all_join(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(map(_values_join, first, second))


def _join(calls: Sequence[DenoiserCall]) -> DenoiserCall:
    if len(calls) == 1:
        return calls[0]
    arguments = {name: _join_values([call.arguments[name] for call in calls]) for name in calls[0].arguments}
    return DenoiserCall(arguments, torch.cat([call.output for call in calls]), calls[0].step)


def _join_values(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values)) if _belongs_to_samples(first, 1) else first
    if isinstance(first, list):
        return [entry for value in values for entry in value] if len(first) == 1 else first
    if isinstance(first, dict):
        return {key: _join_values([value[key] for value in values]) for key in first}
    return first
