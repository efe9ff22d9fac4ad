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

from .reference import Arrays, Exchange

STEPS = 2  # the last one counts, as the first stands at the end of the schedule


@dataclass(frozen=True)
class Call:
    """The arguments of a call, by name, and what came back."""

    given: dict[str, Any]
    answer: Any


@torch.no_grad()
def watched(pipeline: Any, prompt: str, size: tuple[int, int], **settings: Any) -> dict[str, Call]:
    """The last call of each component of a pipeline that paints one picture, by the component's name.

    Those are of the text encoders, of the denoiser, and of the decoder, whose `decode` is called. The noise is the same
    each time. settings: of the pipeline's own.
    """
    height, width = size
    noise = torch.Generator().manual_seed(0)
    methods = {name: "decode" if name == "vae" else "forward" for name in _modules(pipeline)}
    with _recorded(pipeline, methods) as calls:
        pipeline(
            prompt, height=height, width=width, num_inference_steps=STEPS, generator=noise, output_type="np", **settings
        )
    return calls


def exchange(graph: str, inputs: Mapping[str, Tensor], **outputs: Tensor) -> Exchange:
    """An exchange of tensors; floats are in float32, as graphs have them."""
    return Exchange(graph, _arrays(inputs), _arrays(outputs))


def decoded(calls: Mapping[str, Call]) -> Exchange:
    """That of the decoder."""
    call = calls["vae"]
    return exchange("vae_decoder", {"latents": call.given["z"]}, image=call.answer[0])


def _modules(pipeline: Any) -> list[str]:
    return [name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]


@contextmanager
def _recorded(pipeline: Any, methods: Mapping[str, str]) -> Iterator[dict[str, Call]]:
    """The last call of a method of each component; the components are as they were afterwards."""
    calls: dict[str, Call] = {}
    try:
        for name, method in methods.items():
            part = getattr(pipeline, name)
            setattr(part, method, _recording(getattr(part, method), calls, name))
        yield calls
    finally:
        for name, method in methods.items():
            vars(getattr(pipeline, name)).pop(method, None)


def _recording(method: Callable[..., Any], calls: dict[str, Call], name: str) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def recording(*args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        calls[name] = Call(dict(signature.bind(*args, **kwargs).arguments), answer)
        return answer

    return recording


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array
