"""Golden inputs and outputs of Flux's graphs, recorded while the pipeline of diffusers generates an image."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

GUIDANCE = 3.5  # the pipeline's default


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """Returns golden inputs and outputs for each graph."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=GUIDANCE)
    clip, t5, transformer = (calls[name] for name in ("text_encoder", "text_encoder_2", "transformer"))
    return [
        make_golden_io("text_encoder", {"ids": clip.arguments["input_ids"]}, pooled=clip.result.pooler_output),
        make_golden_io("text_encoder_2", {"ids": t5.arguments["input_ids"]}, hidden=t5.result[0]),
        make_golden_io("transformer", _make_inputs(pipeline.transformer, transformer), velocity=transformer.result[0]),
        make_decoder_golden_io(calls),
    ]


def _make_inputs(transformer: Any, call: Call) -> dict[str, Tensor]:
    """Makes the inputs of the graph, which takes rotary tables in place of positions."""
    arguments = call.arguments
    image, text = (compute_rotary_tables(transformer, arguments[ids]) for ids in ("img_ids", "txt_ids"))
    inputs = {
        "patches": arguments["hidden_states"],
        "timestep": arguments["timestep"],
        "hidden": arguments["encoder_hidden_states"],
        "pooled": arguments["pooled_projections"],
        "image_cos": image[0],
        "image_sin": image[1],
        "text_cos": text[0],
        "text_sin": text[1],
    }
    return inputs if arguments["guidance"] is None else inputs | {"guidance": arguments["guidance"]}


def compute_rotary_tables(transformer: Any, ids: Tensor) -> list[Tensor]:
    """Returns cos and sin (tokens, head size / 2) of positions (tokens, 3); the transformer repeats each value."""
    return [table[:, ::2] for table in transformer.pos_embed(ids)]
