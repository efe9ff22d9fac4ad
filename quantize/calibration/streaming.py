"""The reference pipeline with its blocks left on disk: a block is read when it runs and forgotten after.

Memory holds what stands outside the blocks (embeddings, the decoder) and one block, however many there are.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.memory import malloc_trim
from ...pipelines.quantized_modules import strip_modules
from ...pipelines.sampling import load_pipeline_with
from ..plan import ComponentPlan, QuantizationPlan


def load_streaming_pipeline(plan: QuantizationPlan, dtype: torch.dtype) -> Any:
    """The plan's pipeline on the CPU, in evaluation mode, blocks streamed and what is unread left out.

    Raises:
        UserError: the folder is no pipeline that diffusers can load.
    """
    index = json.loads((plan.source / "model_index.json").read_text("utf-8"))
    parts = (*plan.components, *plan.unquantized_components)
    return load_pipeline_with(
        plan.source, dtype, {part.name: _build_streaming_component(part, index[part.name], dtype) for part in parts}
    )


def validate_weights(plan: QuantizationPlan) -> None:
    """Holds the weights of every component against the class that its config describes; nothing is read but headers.

    Raises:
        UserError: a component is not in model_index.json, its class cannot be made from its config, or weights are
            missing or of another shape.
    """
    file = plan.source / "model_index.json"
    index = json.loads(file.read_text("utf-8"))
    for part in (*plan.components, *plan.unquantized_components):
        if not isinstance(index.get(part.name), list):
            raise UserError(f"{file} names no {part.name}; the download is incomplete.")
        _validate_component(part, index[part.name])


def _validate_component(part: ComponentPlan, made_by: Sequence[str]) -> None:
    where = part.checkpoint.folder
    try:
        expected = _build_empty_component(part, made_by, torch.float32).state_dict()
    except Exception as error:  # what a class makes of a wrong config can be anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{where / 'config.json'} does not describe a {part.spec.model_class}: {reason}") from error
    unread = tuple(f"{path}." for path in (*part.unused_blocks, *part.spec.unused_modules))
    for name, tensor in expected.items():
        if name.startswith(unread):
            continue
        if name not in part.checkpoint:
            raise UserError(f"{where} lacks the weight {name} that its config.json means; the download is incomplete.")
        if part.checkpoint.shape(name) != tuple(tensor.shape):
            raise UserError(
                f"{name} in {where} has the shape {part.checkpoint.shape(name)}, where its config.json means "
                f"{tuple(tensor.shape)}; weights and config are not of the same model."
            )


def _build_streaming_component(part: ComponentPlan, made_by: Sequence[str], dtype: torch.dtype) -> nn.Module:
    """One component: `made_by` is its library and class, as model_index.json says."""
    model = _build_empty_component(part, made_by, dtype).eval().requires_grad_(False)
    blocks = [unit.path for unit in part.blocks]
    inside = tuple(f"{path}." for path in blocks)
    resident = {name: _read_tensor(part, name, dtype) for name in part.used_tensor_names if not name.startswith(inside)}
    model.load_state_dict(resident, strict=False, assign=True)
    strip_modules(model, part.unused_blocks, part.spec.unused_modules)
    for path in blocks:
        _stream_block(model.get_submodule(path), part, path, dtype)
    return model


def _build_empty_component(part: ComponentPlan, made_by: Sequence[str], dtype: torch.dtype) -> nn.Module:
    """The component with all its parameters on the meta device; what it computes for itself is real."""
    from accelerate import init_empty_weights

    library, name = made_by
    cls = getattr(importlib.import_module(library), name)
    with init_empty_weights(include_buffers=False):
        if library == "diffusers":
            model: nn.Module = cls.from_config(part.config)
        else:
            model = cls._from_config(cls.config_class.from_dict(part.config), dtype=dtype)
    return model


def _stream_block(block: nn.Module, part: ComponentPlan, path: str, dtype: torch.dtype) -> None:
    names = [name for name, _ in block.named_parameters()]

    def read(*_: Any) -> None:
        stored = {name: _read_tensor(part, f"{path}.{name}", dtype) for name in names}
        block.load_state_dict(stored, strict=False, assign=True)

    def forget(*_: Any) -> None:
        block.load_state_dict({name: block.get_parameter(name).to("meta") for name in names}, strict=False, assign=True)
        malloc_trim()

    block.register_forward_pre_hook(read)
    block.register_forward_hook(forget)


def _read_tensor(part: ComponentPlan, name: str, dtype: torch.dtype) -> Tensor:
    tensor = part.checkpoint.load_tensor(name)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


class _StopForward(Exception):  # noqa: N818  not an error
    """The denoiser was called."""


@contextmanager
def stop_at_denoiser(denoiser: nn.Module) -> Iterator[None]:
    """Ends what runs inside as soon as the denoiser is called, so that only what comes before it has run."""

    def stop(*_: Any) -> None:
        raise _StopForward

    handle = denoiser.register_forward_pre_hook(stop, prepend=True)
    try:
        yield
    except _StopForward:
        pass
    finally:
        handle.remove()
