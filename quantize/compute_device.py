"""The device that PyTorch computes on: the processor, or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError

CPU = torch.device("cpu")
PROCESSOR_ADVICE = "or compute on the processor with 'edgepress quantize --device cpu'"


def resolve_device(name: str) -> torch.device:
    """Returns the device that a name stands for, a GPU with its number.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU where PyTorch finds one.

    Raises:
        UserError: There is no such GPU, or PyTorch is built without CUDA.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.backends.cuda.is_built():
        raise UserError(
            f"PyTorch {torch.__version__} is built without CUDA, so it cannot compute on {name}. Install a build with "
            f"CUDA, {PROCESSOR_ADVICE}."
        )
    if not torch.cuda.is_available():
        raise UserError(
            f"PyTorch finds no GPU, so it cannot compute on {name}. Check the driver with nvidia-smi, "
            f"{PROCESSOR_ADVICE}."
        )
    number, count = int(name.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= count:
        raise UserError(f"There is no GPU {name}: PyTorch finds {count}, numbered from 0. Choose another number.")
    return torch.device("cuda", number)


def describe_device(device: torch.device) -> str | None:
    """Returns the name of a GPU, on whose kind the last bits of a result depend; None for the processor."""
    return None if device.type == "cpu" else str(torch.get_device_module(device).get_device_name(device))


def move_module(module: nn.Module, device: torch.device) -> None:
    """Moves all tensors of a module to a device, but for those without data, in place."""
    if device.type != "cpu":
        module._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Returns containers of tensors with every tensor replaced; outputs of diffusers are changed in place."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict) and type(value) is not dict:
        for key in list(value):
            value[key] = map_tensors(value[key], function)
        return value
    if isinstance(value, Mapping):
        return {key: map_tensors(entry, function) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([map_tensors(entry, function) for entry in value])
    return value


def move_tensors(value: Any, device: torch.device) -> Any:
    """Returns containers of tensors on a device. A tensor that is in several places stays one tensor."""
    moved: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            moved[id(tensor)] = tensor.to(device)
        return moved[id(tensor)]

    return map_tensors(value, move)


@contextmanager
def explain_full_memory(device: torch.device, describe_stage: Callable[[], str]) -> Iterator[None]:
    """Turns an error of a GPU whose memory is full into one that says what to do.

    Args:
        device: Where PyTorch computes.
        describe_stage: Returns the stage that runs.

    Raises:
        UserError: The memory of the GPU was full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The memory of {describe_device(device)} was full in the stage {describe_stage()!r}. Close other programs "
            f"that use the GPU and give the same command again, which goes on from there, {PROCESSOR_ADVICE}."
        ) from error
