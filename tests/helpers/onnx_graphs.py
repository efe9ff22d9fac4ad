"""Runs traced graphs with a component's weights, and builds their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgepress.runtime.onnx.sessions import make_session_options

Inputs = dict[str, NDArray[Any]]


def create_session(model: ir.Model, tensors: dict[str, Tensor]) -> onnxruntime.InferenceSession:
    """Creates a session of a traced graph, with the component's tensors in memory."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.tensor(tensors[name].numpy())
    graph = ir.to_proto(model).SerializeToString()
    options = make_session_options(graph)
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(graph, options)


def compute_error(output: NDArray[Any], expected: Tensor) -> float:
    """Returns the largest difference, relative to the largest expected value."""
    assert output.shape == tuple(expected.shape)
    return float(np.abs(output - expected.numpy()).max() / expected.abs().max())


def enlarge_pad_tokens(transformer: Any) -> Any:
    """Enlarges the pad tokens in place, so that a misplaced or missing one shows."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.copy_(20 * torch.randn_like(token))
    return transformer


def load_component(pipeline: Path, component: str) -> Any:
    """Loads a component of a tiny pipeline with its own class."""
    import diffusers
    import transformers

    classes: dict[str, Any] = {
        "transformer": diffusers.ZImageTransformer2DModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.Qwen3Model,
    }
    return classes[component].from_pretrained(pipeline / component).eval().requires_grad_(False)


def build_graph_inputs(transformer: Any, latents: Tensor, text: Tensor) -> tuple[Inputs, Inputs]:
    """Returns inputs of the caption and transformer graphs for latents (channels, h, w) and text (tokens, width).

    Patches, positions, padding and angles are the transformer's own. The caption is left out.
    """
    image, caption, _, image_ids, caption_ids, image_pad, caption_pad = transformer.patchify_and_embed(
        [latents[:, None]], [text], 2, 1
    )
    # The transformer pads the positions of the caption twice, and cuts them.
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


def compute_velocity(transformer: Any, latents: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Returns torch's velocity (channels, h, w), and the same as patches (1, tokens, width) without padding."""
    with torch.no_grad():
        velocity: Tensor = transformer([latents[:, None]], torch.tensor([0.3]), [text], return_dict=False)[0][0]
    patches, _, _ = transformer._patchify_image(velocity, 2, 1)
    return velocity[:, 0], patches[None]
