"""Golden inputs and outputs of Stable Diffusion XL's graphs, recorded while the pipeline of diffusers runs."""

from __future__ import annotations

from typing import Any

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

NO_GUIDANCE = 1.0  # with guidance, the UNet would run on a batch of two


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """Returns golden inputs and outputs for each graph."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=NO_GUIDANCE)
    first, second = calls["text_encoder"], calls["text_encoder_2"]
    return [
        make_golden_io("text_encoder", {"ids": first.arguments["input_ids"]}, hidden=first.result.hidden_states[-2]),
        make_golden_io(
            "text_encoder_2",
            {"ids": second.arguments["input_ids"]},
            hidden=second.result.hidden_states[-2],
            pooled=second.result.text_embeds,
        ),
        _make_unet_io(calls["unet"]),
        make_decoder_golden_io(calls),
    ]


def _make_unet_io(call: Call) -> GoldenIO:
    arguments = call.arguments
    inputs = {
        "latents": arguments["sample"],
        "timestep": arguments["timestep"].reshape(1),
        "hidden": arguments["encoder_hidden_states"],
        "pooled": arguments["added_cond_kwargs"]["text_embeds"],
        "time_ids": arguments["added_cond_kwargs"]["time_ids"],
    }
    guidance = arguments.get("timestep_cond")
    if guidance is not None:
        inputs["guidance"] = guidance
    return make_golden_io("unet", inputs, noise=call.result[0])
