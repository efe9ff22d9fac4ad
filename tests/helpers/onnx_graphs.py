"""What tests of exported graphs share: running a traced model with a component's weights, and a component's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

Inputs = dict[str, NDArray[Any]]


def session(model: ir.Model, tensors: dict[str, Tensor]) -> onnxruntime.InferenceSession:
    """A session of a traced model with the component's tensors by name; all of them are in the process."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.tensor(tensors[name].numpy())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def error(found: NDArray[Any], expected: Tensor) -> float:
    """The largest difference, relative to the largest value expected."""
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found - expected.numpy()).max() / expected.abs().max())


def with_large_pads(transformer: Any) -> Any:
    """The transformer with pad tokens that show where one stands in a wrong place or is missing; in place."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.copy_(20 * torch.randn_like(token))
    return transformer


def load(pipeline: Path, component: str) -> Any:
    """A component of a tiny pipeline, by its own class."""
    import diffusers
    import transformers

    classes: dict[str, Any] = {
        "transformer": diffusers.ZImageTransformer2DModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.Qwen3Model,
    }
    return classes[component].from_pretrained(pipeline / component).eval().requires_grad_(False)


def inputs_of(transformer: Any, latents: Tensor, text: Tensor) -> tuple[Inputs, Inputs]:
    """What the caption graph and the transformer graph are given for latents (channels, h, w) and text (tokens, width).

    Patches, positions, padding and angles are the transformer's own; the caption is still missing.
    """
    image, caption, _, image_ids, caption_ids, image_pad, caption_pad = transformer.patchify_and_embed(
        [latents[:, None]], [text], 2, 1
    )
    # Positions of the caption are padded twice there, and cut.
    image_angles = transformer.rope_embedder(image_ids[0])
    caption_angles = transformer.rope_embedder(caption_ids[0][: len(caption[0])])
    tables = {
        "image_cos": image_angles.real,
        "image_sin": image_angles.imag,
        "caption_cos": caption_angles.real,
        "caption_sin": caption_angles.imag,
    }
    first = {
        "hidden": caption[0][None],
        "pad": caption_pad[0].float()[None, :, None],
        "cos": caption_angles.real,
        "sin": caption_angles.imag,
    }
    second = {"patches": image[0][None], "pad": image_pad[0].float()[None, :, None], "timestep": torch.tensor([0.3])}
    return _arrays(first), _arrays(second | tables)


def _arrays(tensors: dict[str, Tensor]) -> Inputs:
    return {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}


def picture(transformer: Any, latents: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """The transformer's own velocity (channels, h, w), and the same as patches (1, tokens, width) without pads."""
    with torch.no_grad():
        velocity: Tensor = transformer([latents[:, None]], torch.tensor([0.3]), [text], return_dict=False)[0][0]
    patches, _, _ = transformer._patchify_image(velocity, 2, 1)
    return velocity[:, 0], patches[None]
