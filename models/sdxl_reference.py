"""What Stable Diffusion XL's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

from .pipeline_reference import Call, decoded, exchange, watched
from .reference import Exchange

NO_GUIDANCE = 1.0  # one picture goes through the UNet, not two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[Exchange]:
    """One exchange for each graph."""
    calls = watched(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    first, second = calls["text_encoder"], calls["text_encoder_2"]
    hidden, both = first.answer.hidden_states[-2], second.answer
    return [
        exchange("text_encoder", {"ids": first.given["input_ids"]}, hidden=hidden),
        exchange(
            "text_encoder_2",
            {"ids": second.given["input_ids"]},
            hidden=both.hidden_states[-2],
            pooled=both.text_embeds,
        ),
        _unet(calls["unet"]),
        decoded(calls),
    ]


def _unet(call: Call) -> Exchange:
    given = call.given
    fed = {
        "latents": given["sample"],
        "timestep": given["timestep"].reshape(1),
        "hidden": given["encoder_hidden_states"],
        "pooled": given["added_cond_kwargs"]["text_embeds"],
        "time_ids": given["added_cond_kwargs"]["time_ids"],
    }
    told = given.get("timestep_cond")
    return exchange("unet", fed if told is None else fed | {"guidance": told}, noise=call.answer[0])
