"""Golden inputs and outputs of Qwen-Image's graphs, recorded while the pipeline of diffusers generates an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base.pipeline_observer import Call, make_golden_io, record_calls
from ..base.reference import GoldenIO

NO_GUIDANCE = 1.0  # with guidance, the last calls would be those of the negative prompt


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """Returns golden inputs and outputs for each graph."""
    calls = record_calls(pipeline, prompt, size, true_cfg_scale=NO_GUIDANCE)
    text_encoder, transformer, vae = (calls[name] for name in ("text_encoder", "transformer", "vae"))
    ids, hidden = text_encoder.arguments["input_ids"], text_encoder.result.hidden_states[-1]
    inputs = _make_inputs(pipeline.transformer, transformer)
    latents, image = vae.arguments["z"][:, :, 0], vae.result[0][:, :, 0]
    return [
        make_golden_io("text_encoder", {"ids": ids}, hidden=hidden),
        make_golden_io("transformer", inputs, velocity=transformer.result[0]),
        make_golden_io("vae_decoder", {"latents": latents}, image=image),
    ]


def _make_inputs(transformer: Any, call: Call) -> dict[str, Tensor]:
    """Makes the inputs of the graph, which takes real rotary tables in place of shapes."""
    arguments = call.arguments
    hidden = arguments["encoder_hidden_states"]
    tables = transformer.pos_embed(arguments["img_shapes"], max_txt_seq_len=hidden.shape[1], device=torch.device("cpu"))
    image, text = (torch.view_as_real(table).unbind(-1) for table in tables)
    return {
        "patches": arguments["hidden_states"],
        "timestep": arguments["timestep"],
        "hidden": hidden,
        "image_cos": image[0],
        "image_sin": image[1],
        "text_cos": text[0],
        "text_sin": text[1],
    }
