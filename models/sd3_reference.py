"""What Stable Diffusion 3's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .pipeline_reference import Call, decoded, exchange, watched
from .reference import Exchange

NO_GUIDANCE = 1.0  # one picture goes through the transformer, not two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[Exchange]:
    """One exchange for each graph; none for T5 where the pipeline lacks it."""
    calls = watched(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    clips = [_clip(name, calls[name]) for name in ("text_encoder", "text_encoder_2")]
    t5 = [_t5(call) for name, call in calls.items() if name == "text_encoder_3"]
    return [*clips, *t5, _transformer(pipeline.transformer, calls["transformer"]), decoded(calls)]


def _clip(name: str, call: Call) -> Exchange:
    ids = {"ids": call.given["input_ids"]}
    return exchange(name, ids, hidden=call.answer.hidden_states[-2], pooled=call.answer.text_embeds)


def _t5(call: Call) -> Exchange:
    return exchange("text_encoder_3", {"ids": call.given["input_ids"]}, hidden=call.answer[0])


def _transformer(transformer: Any, call: Call) -> Exchange:
    given, config = call.given, transformer.config
    latents, (velocity,) = given["hidden_states"], call.answer
    fed = {
        "patches": to_patches(latents, config.patch_size),
        "positions": positions(latents, config.patch_size, config.pos_embed_max_size),
        "timestep": given["timestep"],
        "hidden": given["encoder_hidden_states"],
        "pooled": given["pooled_projections"],
    }
    return exchange("transformer", fed, velocity=to_patches(velocity, config.patch_size, channels_last=True))


def to_patches(latents: Tensor, patch: int, channels_last: bool = False) -> Tensor:
    """(1, channels, height, width) as (1, tokens, channels · patch · patch), channels running slowest or fastest."""
    grid = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # 1, channels, rows, patch, columns, patch
    patches: Tensor = grid.permute((0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5))
    return patches.flatten(3).flatten(1, 2)


def positions(latents: Tensor, patch: int, side: int) -> Tensor:
    """Of the patches of latents in the middle of a square of `side` patches, (tokens,)."""
    counts = [length // patch for length in latents.shape[2:]]
    rows, columns = ((side - count) // 2 + torch.arange(count) for count in counts)
    found: Tensor = rows[:, None] * side + columns
    return found.flatten()
