"""Golden inputs and outputs of FLUX.2 klein's graphs, recorded while the pipeline of diffusers generates an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base.pipeline_observer import Call, make_golden_io, record_calls
from ..base.reference import GoldenIO
from ..flux.reference import compute_rotary_tables
from .host import make_causal_mask
from .layers import READ_LAYERS

NO_GUIDANCE = 1.0  # with guidance, the last call of the text encoder would be that of the empty prompt


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """Returns golden inputs and outputs for each graph."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    transformer = calls["transformer"]
    return [
        _make_text_encoder_io(calls["text_encoder"]),
        make_golden_io("transformer", _make_inputs(pipeline.transformer, transformer), velocity=transformer.result[0]),
        _make_decoder_io(pipeline.vae, calls["vae"]),
    ]


def _make_text_encoder_io(call: Call) -> GoldenIO:
    ids, is_token = call.arguments["input_ids"], call.arguments["attention_mask"]
    mask = make_causal_mask(ids.shape[1], int(is_token.shape[1] - is_token.sum()))
    hidden = torch.cat([call.result.hidden_states[number] for number in READ_LAYERS], dim=-1)
    return make_golden_io("text_encoder", {"ids": ids, "mask": torch.from_numpy(mask)}, hidden=hidden)


def _make_inputs(transformer: Any, call: Call) -> dict[str, Tensor]:
    """Makes the inputs of the graph, which takes rotary tables in place of positions."""
    arguments = call.arguments
    image, text = (compute_rotary_tables(transformer, arguments[ids][0]) for ids in ("img_ids", "txt_ids"))
    return {
        "patches": arguments["hidden_states"],
        "timestep": arguments["timestep"],
        "hidden": arguments["encoder_hidden_states"],
        "image_cos": image[0],
        "image_sin": image[1],
        "text_cos": text[0],
        "text_sin": text[1],
    }


def _make_decoder_io(vae: Any, call: Call) -> GoldenIO:
    """Normalizes the latents, as the graph takes them."""
    latents, norm = F.pixel_unshuffle(call.arguments["z"], vae.config.patch_size[0]), vae.bn
    deviation = torch.sqrt(norm.running_var + vae.config.batch_norm_eps)
    latents = (latents - norm.running_mean.reshape(1, -1, 1, 1)) / deviation.reshape(1, -1, 1, 1)
    return make_golden_io("vae_decoder", {"latents": latents}, image=call.result[0])
