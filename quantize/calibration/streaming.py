"""The reference pipeline with its blocks left on disk: a block is loaded when it runs and dropped afterwards.

Memory holds everything outside the blocks (embeddings, the decoder) and one block, however many blocks there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ...common.memory import trim_after
from ...pipelines.empty_modules import build_empty_module
from ...pipelines.quantized_modules import strip_modules
from ...pipelines.sampling import load_pipeline_with
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX
from ..compute_device import CPU, move_module
from ..matmul_dtype import choose_matmul_dtype
from ..plan import ComponentPlan, QuantizationPlan
from .float32_linears import compute_linears_in_float32

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def stream_or_load(plan: QuantizationPlan, run: Callable[[bool], Result]) -> Result:
    """Runs a pipeline with its blocks left on disk until they run or, where it cannot do that, with all in memory.

    Args:
        plan: The pipeline's plan.
        run: Called with whether blocks are left on disk.
    """
    try:
        return run(True)
    except (NotImplementedError, RuntimeError) as error:
        if not _met_weight_on_disk(error):
            raise
        logger.warning(
            "%s uses weights of its blocks outside of them (%s), so all of its weights are kept in memory.",
            plan.family.pipeline_class,
            str(error).splitlines()[0],
        )
    return run(False)


def _met_weight_on_disk(error: Exception) -> bool:
    """Whether a function that an error came through had a tensor without data: of a block that was left on disk."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    values = [(name, value) for frame in frames for name, value in frame.f_locals.items()]
    tensors = [value for _, value in values if isinstance(value, Tensor)]
    tensors += [item for _, value in values if isinstance(value, tuple | list) for item in value]  # arguments
    for name, value in values:
        if name == "self" and isinstance(value, nn.Module):
            tensors += value.parameters(recurse=False)
    return any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors)


def load_streaming_pipeline(
    plan: QuantizationPlan, dtype: torch.dtype, streams: bool = True, device: torch.device = CPU
) -> Any:
    """Loads the plan's pipeline in evaluation mode, with its blocks streamed and without unused modules.

    Args:
        plan: Its plan.
        dtype: What it computes in.
        streams: Whether blocks are left on disk; otherwise everything is loaded.
        device: Where it runs.

    Raises:
        UserError: diffusers cannot load the folder.
    """
    index = read_json_object(plan.source / MODEL_INDEX)
    components = {
        component.name: _build_streaming_component(component, index[component.name][0], dtype, streams, device)
        for component in (*plan.components, *plan.unquantized_components)
    }
    pipeline = load_pipeline_with(plan.source, dtype, components)
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            move_module(module, device)
    return pipeline


def _build_streaming_component(
    component: ComponentPlan, library: str, dtype: torch.dtype, streams: bool, device: torch.device
) -> nn.Module:
    """Builds one component as the family's class, whose names its weights have.

    model_index.json may name a class with a head, which the pipeline does not use.
    """
    class_name = component.spec.model_class
    model = build_empty_module(library, class_name, component.config, dtype).eval().requires_grad_(False)
    strip_modules(model, component.unused_blocks, component.spec.unused_modules)
    if choose_matmul_dtype(dtype, device) is not dtype:
        compute_linears_in_float32(model)
    names = _list_streamed_parameters(model, component.repeated if streams else ())
    streamed = {f"{path}.{name}" for path, block_names in names.items() for name in block_names}
    resident = [name for name in component.used_tensor_names if name not in streamed]
    model.load_state_dict(_load_tensors(component, resident, dtype), strict=False, assign=True)
    if library != "diffusers":
        cast(Any, model).tie_weights()
    for path, block_names in names.items():
        _stream_block(model.get_submodule(path), component, path, block_names, dtype, device)
    return model


def _list_streamed_parameters(model: nn.Module, paths: Sequence[str]) -> dict[str, list[str]]:
    """Lists, for each block, its parameters but those of blocks inside it, relative to the block."""
    names: dict[str, list[str]] = {path: [] for path in paths}
    for parameter, _ in model.named_parameters():
        modules = parameter.split(".")
        prefixes = [".".join(modules[:length]) for length in range(len(modules) - 1, 0, -1)]
        owner = next((prefix for prefix in prefixes if prefix in names), None)
        if owner is not None:
            names[owner].append(parameter.removeprefix(f"{owner}."))
    return names


def _stream_block(
    block: nn.Module,
    component: ComponentPlan,
    path: str,
    names: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Loads a block's parameters of some names to a device when it runs, and drops them afterwards."""

    def load(*_: Any) -> None:
        tensors = _load_tensors(component, [f"{path}.{name}" for name in names], dtype)
        tensors = {name.removeprefix(f"{path}."): tensor.to(device) for name, tensor in tensors.items()}
        block.load_state_dict(tensors, strict=False, assign=True)

    def unload(*_: Any) -> None:
        freed = sum(block.get_parameter(name).nbytes for name in names)
        block.load_state_dict({name: block.get_parameter(name).to("meta") for name in names}, strict=False, assign=True)
        trim_after(freed)

    block.register_forward_pre_hook(load)
    block.register_forward_hook(unload)


def _load_tensors(component: ComponentPlan, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = component.checkpoint.load_tensors(names)
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors}


class _StopForward(Exception):  # noqa: N818  not an error
    """Raised when a denoiser is called."""


@contextmanager
def stop_at_denoiser(*denoisers: nn.Module) -> Iterator[None]:
    """Ends the body as soon as it calls a denoiser, so that only what comes before the denoisers runs."""

    def stop(*_: Any) -> None:
        raise _StopForward

    handles = [denoiser.register_forward_pre_hook(stop, prepend=True) for denoiser in denoisers]
    try:
        yield
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
