"""Golden inputs and outputs of Stable Diffusion 3's graphs, recorded while the pipeline of diffusers runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

NO_GUIDANCE = 1.0  # with guidance, the transformer would run on a batch of two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """Returns golden inputs and outputs for each graph; none for T5 if the pipeline lacks it."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    text_encoders = [_make_clip_io(name, calls[name]) for name in ("text_encoder", "text_encoder_2")]
    if "text_encoder_3" in calls:
        text_encoders.append(_make_t5_io(calls["text_encoder_3"]))
    return [
        *text_encoders,
        _make_transformer_io(pipeline.transformer, calls["transformer"]),
        make_decoder_golden_io(calls),
    ]


def _make_clip_io(name: str, call: Call) -> GoldenIO:
    ids = {"ids": call.arguments["input_ids"]}
    return make_golden_io(name, ids, hidden=call.result.hidden_states[-2], pooled=call.result.text_embeds)


def _make_t5_io(call: Call) -> GoldenIO:
    return make_golden_io("text_encoder_3", {"ids": call.arguments["input_ids"]}, hidden=call.result[0])


def _make_transformer_io(transformer: Any, call: Call) -> GoldenIO:
    arguments, config = call.arguments, transformer.config
    latents, (velocity,) = arguments["hidden_states"], call.result
    inputs = {
        "patches": patchify(latents, config.patch_size),
        "positions": compute_positions(latents, config.patch_size, config.pos_embed_max_size),
        "timestep": arguments["timestep"],
        "hidden": arguments["encoder_hidden_states"],
        "pooled": arguments["pooled_projections"],
    }
    return make_golden_io("transformer", inputs, velocity=patchify(velocity, config.patch_size, channels_last=True))


def patchify(latents: Tensor, patch_size: int, channels_last: bool = False) -> Tensor:
    """Splits latents (1, channels, height, width) into patches (1, tokens, channels * patch_size * patch_size).

    Args:
        latents: The latents.
        patch_size: Rows and columns of a patch.
        channels_last: Whether channels vary fastest within a patch; otherwise they vary slowest.
    """
    grid = latents.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))  # 1, channels, rows, y, columns, x
    patches: Tensor = grid.permute((0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5))
    return patches.flatten(3).flatten(1, 2)


def compute_positions(latents: Tensor, patch_size: int, side: int) -> Tensor:
    """Returns the positions (tokens,) of patches in the middle of a square of `side` patches."""
    counts = [length // patch_size for length in latents.shape[2:]]
    rows, columns = ((side - count) // 2 + torch.arange(count) for count in counts)
    positions: Tensor = rows[:, None] * side + columns
    return positions.flatten()
