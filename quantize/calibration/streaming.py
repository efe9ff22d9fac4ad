"""The reference pipeline with its blocks left on disk: a block is loaded when it runs and dropped afterwards.

Memory holds everything outside the blocks (embeddings, the decoder) and one block, however many blocks there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
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
        component.name: _build_streaming_component(component, index[component.name], dtype)
        for component in (*plan.components, *plan.unquantized_components)
    }
    return load_pipeline_with(plan.source, dtype, components)


def validate_weights(plan: QuantizationPlan) -> None:
    """Checks the weights of every component against the class that its config describes. Reads only headers.

    Raises:
        UserError: A component is not in model_index.json, its class cannot be built from its config, or weights are
            missing or have another shape.
    """
    file = plan.source / MODEL_INDEX
    index = read_json_object(file)
    for component in (*plan.components, *plan.unquantized_components):
        if not isinstance(index.get(component.name), list):
            raise UserError(f"{file} does not list the component {component.name!r}. Download the model again.")
        _validate_component(component, index[component.name])


def _validate_component(component: ComponentPlan, class_path: Sequence[str]) -> None:
    folder = component.checkpoint.folder
    try:
        library, class_name = class_path
        expected = build_empty_module(library, class_name, component.config, torch.float32).state_dict()
    except Exception as error:  # a class may raise anything for an invalid config
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{folder / 'config.json'} does not describe a {component.spec.model_class}: {reason}. "
            "Download the model again."
        ) from error
    for name, tensor in expected.items():
        if name.startswith(component.unused_prefixes):
            continue
        if name not in component.checkpoint:
            raise UserError(
                f"Weight {name!r}, required by config.json, is missing from {folder}. Download the model again."
            )
        if component.checkpoint.shape(name) != tuple(tensor.shape):
            raise UserError(
                f"Weight {name!r} in {folder} has shape {component.checkpoint.shape(name)}, but config.json describes "
                f"{tuple(tensor.shape)}. The weights and config.json belong to different models. "
                "Download the model again."
            )


def _build_streaming_component(component: ComponentPlan, class_path: Sequence[str], dtype: torch.dtype) -> nn.Module:
    """Builds one component.

    Args:
        class_path: Its library and class, as in model_index.json.
    """
    library, class_name = class_path
    model = build_empty_module(library, class_name, component.config, dtype).eval().requires_grad_(False)
    paths = [block.path for block in component.blocks]
    block_prefixes = tuple(f"{path}." for path in paths)
    resident = {
        name: _load_tensor(component, name, dtype)
        for name in component.used_tensor_names
        if not name.startswith(block_prefixes)
    }
    model.load_state_dict(resident, strict=False, assign=True)
    strip_modules(model, component.unused_blocks, component.spec.unused_modules)
    for path in paths:
        _stream_block(model.get_submodule(path), component, path, dtype)
    return model


def _stream_block(block: nn.Module, component: ComponentPlan, path: str, dtype: torch.dtype) -> None:
    names = [name for name, _ in block.named_parameters()]

    def load(*_: Any) -> None:
        tensors = {name: _load_tensor(component, f"{path}.{name}", dtype) for name in names}
        block.load_state_dict(tensors, strict=False, assign=True)

    def unload(*_: Any) -> None:
        block.load_state_dict({name: block.get_parameter(name).to("meta") for name in names}, strict=False, assign=True)
        malloc_trim()

    block.register_forward_pre_hook(load)
    block.register_forward_hook(unload)


def _load_tensor(component: ComponentPlan, name: str, dtype: torch.dtype) -> Tensor:
    tensor = component.checkpoint.load_tensor(name)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


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
