"""What Stable Diffusion XL's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

NO_GUIDANCE = 1.0  # one picture goes through the UNet, not two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """One exchange for each graph."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    first, second = calls["text_encoder"], calls["text_encoder_2"]
    hidden, both = first.result.hidden_states[-2], second.result
    return [
        make_golden_io("text_encoder", {"ids": first.arguments["input_ids"]}, hidden=hidden),
        make_golden_io(
            "text_encoder_2",
            {"ids": second.arguments["input_ids"]},
            hidden=both.hidden_states[-2],
            pooled=both.text_embeds,
        ),
        _make_unet_io(calls["unet"]),
        make_decoder_golden_io(calls),
    ]


def _make_unet_io(call: Call) -> GoldenIO:
    given = call.arguments
    fed = {
        "latents": given["sample"],
        "timestep": given["timestep"].reshape(1),
        "hidden": given["encoder_hidden_states"],
        "pooled": given["added_cond_kwargs"]["text_embeds"],
        "time_ids": given["added_cond_kwargs"]["time_ids"],
    }
    told = given.get("timestep_cond")
    return make_golden_io("unet", fed if told is None else fed | {"guidance": told}, noise=call.result[0])
