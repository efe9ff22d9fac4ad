"""What a diffusers pipeline asks of its components while it paints, and what they answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .reference import Arrays, GoldenIO

NUM_STEPS = 2  # the last one counts, as the first stands at the end of the schedule


@dataclass(frozen=True)
class Call:
    """The arguments of a call, by name, and what came back."""

    arguments: dict[str, Any]
    result: Any


@torch.no_grad()
def record_calls(pipeline: Any, prompt: str, size: tuple[int, int], **settings: Any) -> dict[str, Call]:
    """The last call of each component of a pipeline that paints one picture, by the component's name.

    Those are of the text encoders, of the denoiser, and of the decoder, whose `decode` is called. The noise is the same
    each time. settings: of the pipeline's own.
    """
    height, width = size
    noise = torch.Generator().manual_seed(0)
    methods = {name: "decode" if name == "vae" else "forward" for name in _list_modules(pipeline)}
    with _recording(pipeline, methods) as calls:
        pipeline(
            prompt,
            height=height,
            width=width,
            num_inference_steps=NUM_STEPS,
            generator=noise,
            output_type="np",
            **settings,
        )
    return calls


def make_golden_io(graph: str, inputs: Mapping[str, Tensor], **outputs: Tensor) -> GoldenIO:
    """An exchange of tensors; floats are in float32, as graphs have them."""
    return GoldenIO(graph, _to_arrays(inputs), _to_arrays(outputs))


def make_decoder_golden_io(calls: Mapping[str, Call]) -> GoldenIO:
    """That of the decoder."""
    call = calls["vae"]
    return make_golden_io("vae_decoder", {"latents": call.arguments["z"]}, image=call.result[0])


def _list_modules(pipeline: Any) -> list[str]:
    return [name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]


@contextmanager
def _recording(pipeline: Any, methods: Mapping[str, str]) -> Iterator[dict[str, Call]]:
    """The last call of a method of each component; the components are as they were afterwards."""
    calls: dict[str, Call] = {}
    try:
        for name, method in methods.items():
            part = getattr(pipeline, name)
            setattr(part, method, _wrap_method(getattr(part, method), calls, name))
        yield calls
    finally:
        for name, method in methods.items():
            vars(getattr(pipeline, name)).pop(method, None)


def _wrap_method(method: Callable[..., Any], calls: dict[str, Call], name: str) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def recording(*args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        calls[name] = Call(dict(signature.bind(*args, **kwargs).arguments), answer)
        return answer

    return recording


def _to_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: _to_array(tensor) for name, tensor in tensors.items()}


def _to_array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array
