"""What Flux's components are asked and answer while diffusers' pipeline paints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .pipeline_reference import Call, decoded, exchange, watched
from .reference import Exchange

GUIDANCE = 3.5  # as the pipeline has it


def observe(pipeline: Any, prompt: str, size: tuple[int, int]) -> list[Exchange]:
    """One exchange for each graph."""
    calls = watched(pipeline, prompt, size, guidance_scale=GUIDANCE)
    clip, t5 = calls["text_encoder"], calls["text_encoder_2"]
    return [
        exchange("text_encoder", {"ids": clip.given["input_ids"]}, pooled=clip.answer.pooler_output),
        exchange("text_encoder_2", {"ids": t5.given["input_ids"]}, hidden=t5.answer[0]),
        exchange(
            "transformer", _fed(pipeline.transformer, calls["transformer"]), velocity=calls["transformer"].answer[0]
        ),
        decoded(calls),
    ]


def _fed(transformer: Any, call: Call) -> dict[str, Tensor]:
    """What the graph is given: positions have become angles."""
    given = call.given
    image, text = (angles(transformer, given[ids]) for ids in ("img_ids", "txt_ids"))
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


def angles(transformer: Any, ids: Tensor) -> list[Tensor]:
    """Cos and sin (tokens, head size / 2) of positions (tokens, 3), by the transformer's own table of all channels."""
    return [table[:, ::2] for table in transformer.pos_embed(ids)]
