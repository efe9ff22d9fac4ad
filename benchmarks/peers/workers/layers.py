"""Shared by all peers: the layers of a job, the bits of tensors, and calibration inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .job import QuantizeJob


class DequantizedLayer(NamedTuple):
    """A quantized layer.

    Attributes:
        weight: The dequantized weight (out, in) in float32.
        bits: Bits that are stored for it.
    """

    weight: Tensor
    bits: int


def iter_linears(pipeline: Any, job: QuantizeJob) -> Iterator[tuple[str, nn.Linear]]:
    """Yields the layers to quantize, named "component.module"."""
    for component, names in job.layers.items():
        model: nn.Module = getattr(pipeline, component)
        for name in names:
            yield f"{component}.{name}", get_linear(model, name)


def get_linear(model: nn.Module, name: str) -> nn.Linear:
    """Returns a layer by its name. Peers replace layers with subclasses and substitutes of `nn.Linear`."""
    module: Any = model.get_submodule(name)
    return module  # type: ignore[no-any-return]


def count_bits(*tensors: Tensor) -> int:
    """Returns the bits that tensors take in a file."""
    return sum(8 * tensor.nbytes for tensor in tensors)


def count_grouped_bits(weights: int, groups: int) -> int:
    """Returns the bits of 4-bit codes with a 16-bit scale and a 4-bit zero point per group."""
    return 4 * weights + (16 + 4) * groups


def run_calibration(pipeline: Any, job: QuantizeJob) -> None:
    """Runs the calibration prompts, for peers that observe inputs."""
    pipeline.set_progress_bar_config(disable=True)
    for batch in job.calibration:
        generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
        with torch.no_grad():
            pipeline(list(batch.prompts), generator=generators, **job.sampling)


@contextmanager
def observe_inputs(pipeline: Any, job: QuantizeJob, observers: dict[str, Any]) -> Iterator[None]:
    """Calls observers[name](rows) with the rows (tokens, in) that reach each layer.

    Padding is left out if the component gets an attention mask, because the pipeline discards it.
    """
    handles = []
    for component, names in job.layers.items():
        model: nn.Module = getattr(pipeline, component)
        mask: dict[str, Tensor | None] = {"tokens": None}
        handles.append(model.register_forward_pre_hook(_make_mask_hook(mask), with_kwargs=True))
        for name in names:
            hook = _make_input_hook(observers[f"{component}.{name}"], mask)
            handles.append(model.get_submodule(name).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _make_mask_hook(mask: dict[str, Tensor | None]) -> Any:
    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        attention_mask = kwargs.get("attention_mask")
        mask["tokens"] = (
            attention_mask.bool() if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
        )

    return hook


def _make_input_hook(observer: Any, mask: dict[str, Tensor | None]) -> Any:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach()
        observer(x[mask["tokens"]] if mask["tokens"] is not None else x.reshape(-1, x.shape[-1]))

    return hook
