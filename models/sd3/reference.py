"""What Stable Diffusion 3's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

NO_GUIDANCE = 1.0  # one picture goes through the transformer, not two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """One exchange for each graph; none for T5 where the pipeline lacks it."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    clips = [_make_clip_io(name, calls[name]) for name in ("text_encoder", "text_encoder_2")]
    t5 = [_make_t5_io(call) for name, call in calls.items() if name == "text_encoder_3"]
    return [
        *clips,
        *t5,
        _make_transformer_io(pipeline.transformer, calls["transformer"]),
        make_decoder_golden_io(calls),
    ]


def _make_clip_io(name: str, call: Call) -> GoldenIO:
    ids = {"ids": call.arguments["input_ids"]}
    return make_golden_io(name, ids, hidden=call.result.hidden_states[-2], pooled=call.result.text_embeds)


def _make_t5_io(call: Call) -> GoldenIO:
    return make_golden_io("text_encoder_3", {"ids": call.arguments["input_ids"]}, hidden=call.result[0])


def _make_transformer_io(transformer: Any, call: Call) -> GoldenIO:
    given, config = call.arguments, transformer.config
    latents, (velocity,) = given["hidden_states"], call.result
    fed = {
        "patches": patchify(latents, config.patch_size),
        "positions": compute_positions(latents, config.patch_size, config.pos_embed_max_size),
        "timestep": given["timestep"],
        "hidden": given["encoder_hidden_states"],
        "pooled": given["pooled_projections"],
    }
    return make_golden_io("transformer", fed, velocity=patchify(velocity, config.patch_size, channels_last=True))


def patchify(latents: Tensor, patch: int, channels_last: bool = False) -> Tensor:
    """(1, channels, height, width) as (1, tokens, channels · patch · patch), channels running slowest or fastest."""
    grid = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # 1, channels, rows, patch, columns, patch
    patches: Tensor = grid.permute((0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5))
    return patches.flatten(3).flatten(1, 2)


def compute_positions(latents: Tensor, patch: int, side: int) -> Tensor:
    """Of the patches of latents in the middle of a square of `side` patches, (tokens,)."""
    counts = [length // patch for length in latents.shape[2:]]
    rows, columns = ((side - count) // 2 + torch.arange(count) for count in counts)
    found: Tensor = rows[:, None] * side + columns
    return found.flatten()
