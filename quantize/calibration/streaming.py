"""The reference pipeline with its blocks left on disk: a block is loaded when it runs and dropped afterwards.

Memory holds everything outside the blocks (embeddings, the decoder) and one block, however many blocks there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...common.memory import malloc_trim
from ...pipelines.empty_modules import build_empty_module
from ...pipelines.quantized_modules import strip_modules
from ...pipelines.sampling import load_pipeline_with
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX
from ..plan import ComponentPlan, QuantizationPlan


def load_streaming_pipeline(plan: QuantizationPlan, dtype: torch.dtype) -> Any:
    """Loads the plan's pipeline on the CPU in evaluation mode, with its blocks streamed and without unused modules.

    Raises:
        UserError: diffusers cannot load the folder.
    """
    index = read_json_object(plan.source / MODEL_INDEX)
    components = {
        component.name: _build_streaming_component(component, index[component.name][0], dtype)
        for component in (*plan.components, *plan.unquantized_components)
    }
    return load_pipeline_with(plan.source, dtype, components)


def _build_streaming_component(component: ComponentPlan, library: str, dtype: torch.dtype) -> nn.Module:
    """Builds one component as the family's class, whose names its weights have.

    model_index.json may name a class with a head, which the pipeline does not use.
    """
    class_name = component.spec.model_class
    model = build_empty_module(library, class_name, component.config, dtype).eval().requires_grad_(False)
    paths = [block.path for block in component.blocks]
    block_prefixes = tuple(f"{path}." for path in paths)
    resident = [name for name in component.used_tensor_names if not name.startswith(block_prefixes)]
    resident_tensors = _load_tensors(component, resident, dtype)
    model.load_state_dict(resident_tensors, strict=False, assign=True)
    strip_modules(model, component.unused_blocks, component.spec.unused_modules)
    for path in paths:
        _stream_block(model.get_submodule(path), component, path, dtype)
    return model


def _stream_block(block: nn.Module, component: ComponentPlan, path: str, dtype: torch.dtype) -> None:
    names = [name for name, _ in block.named_parameters()]

    def load(*_: Any) -> None:
        tensors = _load_tensors(component, [f"{path}.{name}" for name in names], dtype)
        tensors = {name.removeprefix(f"{path}."): tensor for name, tensor in tensors.items()}
        block.load_state_dict(tensors, strict=False, assign=True)

    def unload(*_: Any) -> None:
        block.load_state_dict({name: block.get_parameter(name).to("meta") for name in names}, strict=False, assign=True)
        malloc_trim()

    block.register_forward_pre_hook(load)
    block.register_forward_hook(unload)


def _load_tensors(component: ComponentPlan, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = component.checkpoint.load_tensors(names)
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors}


class _StopForward(Exception):  # noqa: N818  not an error
    """Raised when the denoiser is called."""


@contextmanager
def stop_at_denoiser(denoiser: nn.Module) -> Iterator[None]:
    """Ends the body as soon as it calls the denoiser, so that only what comes before the denoiser runs."""

    def stop(*_: Any) -> None:
        raise _StopForward

    handle = denoiser.register_forward_pre_hook(stop, prepend=True)
    try:
        yield
    except _StopForward:
        pass
    finally:
        handle.remove()
