"""The host of FLUX.1: patches and rotary tables around the graphs, and the 8-bit image.

It computes in numpy what FluxTransformer2DModel and FluxPipeline of diffusers compute in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.host import RunGraph
from ..base.prompt_tokens import PromptFormat, TokensByTokenizer
from ..shared.autoencoder_host import AutoencoderHost
from ..shared.latents import patchify, unpatchify
from ..shared.rotary_tables import RotaryTables, name_tables

PATCH_SIZE = 2
T5_TOKENS = 512  # which the pipeline pads prompts to, unless it is given another number
ROPE_THETA = 10000.0
NUM_AXES = 3  # of positions; the first is 0, the others are row and column


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        hidden: Hidden states of T5, (1, T, width).
        pooled: Embedding of CLIP, (1, width).
    """

    hidden: NDArray[np.float32]
    pooled: NDArray[np.float32]


class FluxHost(AutoencoderHost):
    """Host of FluxPipeline."""

    takes_negative_prompt = False  # only with `true_cfg_scale`, which no published model needs

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer = configs["transformer"]
        super().__init__(configs, int(transformer["in_channels"]) // PATCH_SIZE**2, PATCH_SIZE)
        self._rotary = RotaryTables(tuple(transformer["axes_dims_rope"]), ROPE_THETA, rounds_angles=False)
        self.takes_guidance = self.needs_guidance = bool(transformer["guidance_embeds"])
        clip_tokens = int(configs["text_encoder"]["max_position_embeddings"])
        self.prompt_formats = (
            PromptFormat("tokenizer", clip_tokens, is_padded=True),
            PromptFormat("tokenizer_2", T5_TOKENS, is_padded=True),
        )

    def is_guided(self, guidance: float) -> bool:  # noqa: ARG002  the transformer takes the scale
        """Whether there is a second pass: never."""
        return False

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> EncodedPrompt:
        """Runs both text encoders."""
        pooled = run("text_encoder", {"ids": tokens["tokenizer"].ids[None]})
        return EncodedPrompt(run("text_encoder_2", {"ids": tokens["tokenizer_2"].ids[None]}), pooled)

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: EncodedPrompt,
        guidance: float = 0.0,
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0."""
        rows, columns = latents.shape[2] // PATCH_SIZE, latents.shape[3] // PATCH_SIZE
        image = self._rotary.compute(make_image_positions(rows, columns))
        text = self._rotary.compute(np.zeros((prompt.hidden.shape[1], NUM_AXES), np.int64))
        inputs: dict[str, NDArray[Any]] = {
            "patches": patchify(latents, PATCH_SIZE, channels_last=False)[None],
            "timestep": np.array([np.float32(timestep) / 1000], np.float32),
            "hidden": prompt.hidden,
            "pooled": prompt.pooled,
            **name_tables(image, text),
        }
        if self.takes_guidance:
            inputs["guidance"] = np.array([guidance], np.float32)
        return unpatchify(run("transformer", inputs)[0], latents.shape, PATCH_SIZE, channels_last=False)


def make_image_positions(rows: int, columns: int) -> NDArray[np.int64]:
    """Returns the positions (tokens, 3) of patches: (0, row, column)."""
    positions = np.zeros((rows * columns, NUM_AXES), np.int64)
    positions[:, 1:] = np.indices((rows, columns)).reshape(2, -1).T
    return positions
