"""The host of FLUX.2 klein: masks and rotary tables around the graphs, and the 8-bit image.

It computes in numpy what Flux2Transformer2DModel and Flux2KleinPipeline of diffusers compute in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.host import RunGraph
from ..base.prompt_tokens import PromptFormat, TokensByTokenizer
from ..base.tiling import DecoderStages
from ..shared.latent_host import DEFAULT_RESOLUTION, LatentHost
from ..shared.rotary_tables import RotaryTables, name_tables
from ..shared.vae_tiling import NUM_BLOCKS, plan_decoder_stages

MAX_SEQUENCE_LENGTH = 512  # tokens that the pipeline pads prompts to, unless it is given another number
PATCH_SIZE = 2  # rows and columns of the VAE's latents that are the channels of one of the denoiser's
NUM_AXES = 4  # of positions: image, row, column, and token of the prompt
MASKED = np.float32(-30000)  # added to scores that do not count; float16 holds it, and its exponential is 0
# The shift that the pipeline computes: at 10 and at 200 steps it is linear in the number of image tokens, between them
# and beyond in the number of steps. Of larger images only the second line counts.
SLOPE_10, OFFSET_10 = 8.73809524e-05, 1.89833333
SLOPE_200, OFFSET_200 = 0.00016927, 0.45666666
LARGE_IMAGE = 4300  # tokens


class KleinHost(LatentHost):
    """Host of Flux2KleinPipeline for batch size 1."""

    takes_negative_prompt = False
    image_refusal = (
        "diffusers has no image-to-image pipeline of FLUX.2 klein: its pipeline takes images as references, and "
        "edgepress generates without references"
    )

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer, vae = configs["transformer"], configs["vae"]
        num_blocks = len(vae["block_out_channels"])
        if not num_blocks:
            raise ValueError("block_out_channels is []")
        native = int(vae.get("sample_size") or DEFAULT_RESOLUTION)
        super().__init__(int(transformer["in_channels"]), 2 ** (num_blocks - 1) * PATCH_SIZE, 1, native)
        self._rotary = RotaryTables(
            tuple(transformer["axes_dims_rope"]), float(transformer["rope_theta"]), rounds_angles=False
        )
        self.takes_guidance = not configs.get("pipeline", {}).get("is_distilled", False)
        self.decoder_stages: DecoderStages | None = plan_decoder_stages(vae) if num_blocks == NUM_BLOCKS else None
        self.prompt_formats = (
            PromptFormat(
                "tokenizer", MAX_SEQUENCE_LENGTH, is_padded=True, chat_template_kwargs={"enable_thinking": False}
            ),
        )

    def compute_mu(self, image_tokens: int, steps: int) -> float:
        """Returns the shift that the pipeline gives its scheduler, from the numbers of image tokens and steps."""
        at_200 = SLOPE_200 * image_tokens + OFFSET_200
        if image_tokens > LARGE_IMAGE:
            return at_200
        slope = (at_200 - (SLOPE_10 * image_tokens + OFFSET_10)) / (200 - 10)
        return at_200 + slope * (steps - 200)

    def is_guided(self, guidance: float) -> bool:
        """Whether the scale is above 1, and the model was not distilled into few steps."""
        return guidance > 1 and self.takes_guidance

    def choose_negative_prompt(self, text: str) -> str | None:  # noqa: ARG002  the pipeline takes none
        """Returns the empty prompt."""
        return ""

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> NDArray[np.float32]:
        """Runs the text encoder; its states of pads count too. Returns (1, T, width)."""
        prompt = tokens["tokenizer"]
        mask = make_causal_mask(len(prompt.ids), prompt.num_pads)
        return run("text_encoder", {"ids": prompt.ids[None], "mask": mask})

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: NDArray[np.float32],
        guidance: float = 0.0,  # noqa: ARG002  the transformer takes none
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0."""
        _, channels, rows, columns = latents.shape
        image_positions = np.zeros((rows * columns, NUM_AXES), np.int64)
        image_positions[:, 1:3] = np.indices((rows, columns)).reshape(2, -1).T
        text_positions = np.zeros((prompt.shape[1], NUM_AXES), np.int64)
        text_positions[:, 3] = np.arange(prompt.shape[1])
        inputs: dict[str, NDArray[Any]] = {
            "patches": latents.reshape(1, channels, -1).transpose(0, 2, 1),
            "timestep": np.array([np.float32(timestep) / 1000], np.float32),
            "hidden": prompt,
            **name_tables(self._rotary.compute(image_positions), self._rotary.compute(text_positions)),
        }
        return run("transformer", inputs).transpose(0, 2, 1).reshape(latents.shape)


def make_causal_mask(length: int, num_pads: int) -> NDArray[np.float32]:
    """Makes what is added to attention scores (1, 1, length, length), so that a token sees earlier ones but no pads."""
    places = np.arange(length)
    is_visible = (places <= places[:, None]) & (places < length - num_pads)
    return np.where(is_visible, np.float32(0), MASKED)[None, None]
