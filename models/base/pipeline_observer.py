"""Records what a diffusers pipeline passes to its components while it generates an image, and what they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .reference import Arrays, GoldenIO

ENCODER, DECODER = "vae_encoder", "vae_decoder"
NUM_STEPS = 2  # the last step is recorded; the first one stands at the very start of the schedule


@dataclass(frozen=True)
class Call:
    """A recorded call.

    Attributes:
        arguments: Arguments by parameter name.
        result: What the call returned.
    """

    arguments: dict[str, Any]
    result: Any


@torch.no_grad()
def record_calls(pipeline: Any, prompt: str, size: tuple[int, int], **settings: Any) -> dict[str, Call]:
    """Generates one image with fixed noise and records the last call of each component.

    Args:
        pipeline: The diffusers pipeline.
        prompt: Prompt of the image.
        size: Height and width in pixels.
        **settings: Further arguments of the pipeline.

    Returns:
        The last call of `forward`, or of the VAE's `decode`, by component name.
    """
    height, width = size
    components = [name for name, component in pipeline.components.items() if isinstance(component, torch.nn.Module)]
    methods = {name: "decode" if name == "vae" else "forward" for name in components}
    with _recording(pipeline, methods) as calls:
        pipeline(
            prompt=prompt,
            height=height,
            width=width,
            num_inference_steps=NUM_STEPS,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            **settings,
        )
    return calls


def make_golden_io(graph: str, inputs: Mapping[str, Tensor], **outputs: Tensor) -> GoldenIO:
    """Makes the golden inputs and outputs of a graph from tensors; floats become float32."""
    return GoldenIO(graph, _to_arrays(inputs), _to_arrays(outputs))


def make_decoder_golden_io(calls: Mapping[str, Call]) -> GoldenIO:
    """Makes the golden inputs and outputs of the decoder from the recorded calls."""
    call = calls["vae"]
    return make_golden_io(DECODER, {"latents": call.arguments["z"]}, image=call.result[0])


def make_encoder_golden_io(vae: Any, goldens: Sequence[GoldenIO]) -> GoldenIO:
    """Makes the golden inputs and outputs of the encoder, which encodes the image of the decoder's.

    Args:
        vae: The VAE.
        goldens: Golden inputs and outputs of the pipeline, those of the decoder included.
    """
    decoder = next(golden for golden in goldens if golden.graph == DECODER)
    pixels = round_pixels(torch.from_numpy(decoder.outputs["image"]))
    return make_golden_io(ENCODER, {"image": pixels}, distribution=encode_pixels(vae, pixels))


def round_pixels(image: Tensor) -> Tensor:
    """Rounds an image in [-1, 1] to 8 bits."""
    return ((image / 2 + 0.5).clamp(0, 1) * 255).round() / 255 * 2 - 1


@torch.no_grad()
def encode_pixels(vae: Any, pixels: Tensor) -> Tensor:
    """Encodes an image (1, 3, height, width) to the means and deviations (1, 2 * channels, h, w) of its latents.

    To a VAE of videos, an image is a video of one frame.
    """
    is_video = vae.encoder.conv_in.weight.ndim == 5
    distribution = vae.encode(pixels[:, :, None] if is_video else pixels).latent_dist
    moments = torch.cat([distribution.mean, distribution.std], dim=1)
    return moments[:, :, 0] if is_video else moments


@contextmanager
def _recording(pipeline: Any, methods: Mapping[str, str]) -> Iterator[dict[str, Call]]:
    """Records the last call of one method of each component; afterwards the components are as they were before."""
    calls: dict[str, Call] = {}
    try:
        for name, method in methods.items():
            component = getattr(pipeline, name)
            setattr(component, method, _wrap_method(getattr(component, method), calls, name))
        yield calls
    finally:
        for name, method in methods.items():
            vars(getattr(pipeline, name)).pop(method, None)


def _wrap_method(method: Callable[..., Any], calls: dict[str, Call], name: str) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def record(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        calls[name] = Call(dict(signature.bind(*args, **kwargs).arguments), result)
        return result

    return record


def _to_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: _to_array(tensor) for name, tensor in tensors.items()}


def _to_array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array
