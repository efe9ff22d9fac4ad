"""A device that is none: it computes on the processor, and refuses what a GPU would refuse.

PyTorch takes its tensors for those of an accelerator. Whatever mixes them with tensors of the processor fails, but for
copies, numbers, and indices, as on a GPU; so does reading their memory. Their values are real, so that results can be
compared with the processor's to the bit. What is not emulated: kernels, rounding, streams, autocast and memory.

It is registered for the whole process, so tests use it in a process of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "emulated"
aten = torch.ops.aten
MAY_MIX = {aten.copy_.default}
FACTORIES = (
    "empty.memory_format",
    "empty_strided",
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "linspace",
)
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # by indices on any device


class EmulatedModule(_DummyBackendModule):
    """What `torch.cuda` is for GPUs.

    Attributes:
        free: Bytes of memory.
    """

    free = 2**33

    def get_device_name(self, _: torch.device) -> str:
        return "Emulated GPU"

    def get_device_capability(self, _: torch.device) -> tuple[int, int]:
        return 7, 5

    def mem_get_info(self, _: torch.device) -> tuple[int, int]:
        return self.free, 2**33

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class EmulatedTensor(Tensor):
    """A tensor of the device.

    Attributes:
        inner: The tensor of the processor that has its values.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> EmulatedTensor:
        tensor: EmulatedTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.inner = inner
        return tensor

    def __repr__(self, **_: Any) -> str:
        return f"EmulatedTensor({self.inner})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:  # has an address, as memory of a GPU
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wrappers: dict[int, EmulatedTensor] = {}
        may_mix = func in MAY_MIX

        def unwrap(value: Any) -> Any:
            if isinstance(value, EmulatedTensor):
                wrappers[id(value.inner)] = value
                return value.inner
            if isinstance(value, Tensor) and value.ndim and not may_mix:
                raise RuntimeError(f"{func} mixes tensors of {NAME} and {value.device}")
            return [unwrap(entry) for entry in value] if isinstance(value, list | tuple) else value

        def wrap(value: Any) -> Any:
            if isinstance(value, Tensor):
                wrapper = wrappers.get(id(value))
                value = value.resolve_conj().resolve_neg()  # their bits would be lost
                wrapper = EmulatedTensor(value) if wrapper is None else wrapper
                assert wrapper.shape == value.shape, f"{func} changes the shape of a tensor of {NAME} in place"
                return wrapper
            return type(value)(map(wrap, value)) if isinstance(value, list | tuple) else value

        if func in INDEXING:
            indices = [value.inner if isinstance(value, EmulatedTensor) else value for value in args[1]]
            inner_args = [unwrap(args[0]), indices, *map(unwrap, args[2:])]
        else:
            inner_args = [unwrap(value) for value in args]
        inner_kwargs = {name: unwrap(value) for name, value in (kwargs or {}).items()}
        device = inner_kwargs.get("device")
        if device is not None:
            inner_kwargs["device"] = torch.device("cpu")
        result = func(*inner_args, **inner_kwargs)
        if device is not None and torch.device(device).type == "cpu":
            return result.clone() if func is aten._to_copy.default else result
        return wrap(result)


def register() -> torch.device:
    """Makes the device known to PyTorch, and returns it."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=EmulatedModule())
    library = torch.library.Library("aten", "IMPL")
    library.impl("_copy_from", _copy, "PrivateUse1")
    for name in FACTORIES:
        library.impl(name, partial(_make, name), "PrivateUse1")
    _LIBRARIES.append(library)
    return torch.device(NAME, 0)


_LIBRARIES: list[torch.library.Library] = []  # what one has registered ends with it


def _make(name: str, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    packet, _, overload = name.partition(".")
    return EmulatedTensor(getattr(getattr(aten, packet), overload or "default")(*args, dtype=dtype))


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:  # noqa: ARG001  torch's
    values = source.inner if isinstance(source, EmulatedTensor) else source
    (target.inner if isinstance(target, EmulatedTensor) else target).copy_(values)
    return target
