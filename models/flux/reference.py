"""What Flux's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base.pipeline_observer import Call, make_decoder_golden_io, make_golden_io, record_calls
from ..base.reference import GoldenIO

GUIDANCE = 3.5  # as the pipeline has it


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
    """One exchange for each graph."""
    calls = record_calls(pipeline, prompt, size, guidance_scale=GUIDANCE)
    clip, t5 = calls["text_encoder"], calls["text_encoder_2"]
    return [
        make_golden_io("text_encoder", {"ids": clip.arguments["input_ids"]}, pooled=clip.result.pooler_output),
        make_golden_io("text_encoder_2", {"ids": t5.arguments["input_ids"]}, hidden=t5.result[0]),
        make_golden_io(
            "transformer",
            _make_inputs(pipeline.transformer, calls["transformer"]),
            velocity=calls["transformer"].result[0],
        ),
        make_decoder_golden_io(calls),
    ]


def _make_inputs(transformer: Any, call: Call) -> dict[str, Tensor]:
    """What the graph is given: positions have become angles."""
    given = call.arguments
    image, text = (compute_angles(transformer, given[ids]) for ids in ("img_ids", "txt_ids"))
    fed = {
        "patches": given["hidden_states"],
        "timestep": given["timestep"],
        "hidden": given["encoder_hidden_states"],
        "pooled": given["pooled_projections"],
        "image_cos": image[0],
        "image_sin": image[1],
        "text_cos": text[0],
        "text_sin": text[1],
    }
    return fed if given["guidance"] is None else fed | {"guidance": given["guidance"]}


def compute_angles(transformer: Any, ids: Tensor) -> list[Tensor]:
    """Cos and sin (tokens, head size / 2) of positions (tokens, 3), by the transformer's own table of all channels."""
    return [table[:, ::2] for table in transformer.pos_embed(ids)]
