"""The host of Qwen-Image: the prompt's template, patches and rotary tables around the graphs, and the 8-bit image.

It computes in numpy what QwenImageTransformer2DModel and QwenImagePipeline of diffusers compute in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.host import RunGraph
from ..base.prompt_tokens import PromptFormat, TokensByTokenizer
from ..base.tiling import DecoderStages
from ..shared.latent_host import LatentHost
from ..shared.latents import patchify, unpatchify
from ..shared.rotary_tables import RotaryTables, Table, name_tables

SYSTEM_PROMPT = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
TEMPLATE = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{{}}<|im_end|>\n<|im_start|>assistant\n"
NUM_DROPPED = 34  # tokens of the template before the prompt, whose states the pipeline drops
MAX_SEQUENCE_LENGTH = 512  # states that it keeps, unless it is given another number
PATCH_SIZE = 2
ROPE_THETA = 10000.0
NO_TEXT = " "  # what guidance leads away from where there is no negative prompt
UNSUPPORTED = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")


class QwenImageHost(LatentHost):
    """Host of QwenImagePipeline for batch size 1."""

    decoder_stages: DecoderStages | None = None
    encoder_graph = "vae_encoder"

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer, vae = configs["transformer"], configs["vae"]
        for key in UNSUPPORTED:
            if transformer.get(key):
                raise ValueError(f"{key} of the transformer is set, but not supported")
        channels = int(transformer["in_channels"]) // PATCH_SIZE**2
        super().__init__(channels, 2 ** len(vae["temperal_downsample"]), PATCH_SIZE)
        mean, deviation = (
            np.array(vae[key], np.float32).reshape(1, -1, 1, 1) for key in ("latents_mean", "latents_std")
        )
        if not mean.shape[1] == deviation.shape[1] == self._channels:
            raise ValueError(f"latents_mean and latents_std must have {self._channels} values")
        if not deviation.all():
            raise ValueError("latents_std has a 0")
        self.latent_scale, self.latent_shift = np.float32(1) / deviation, mean
        self._rotary = RotaryTables(tuple(transformer["axes_dims_rope"]), ROPE_THETA)
        self.prompt_formats = (PromptFormat("tokenizer", NUM_DROPPED + MAX_SEQUENCE_LENGTH, text=TEMPLATE),)

    def choose_negative_prompt(self, text: str) -> str | None:
        """Returns a space in place of an empty prompt."""
        return text or NO_TEXT

    def apply_guidance(
        self, velocity: NDArray[np.float32], negative: NDArray[np.float32], scale: float
    ) -> NDArray[np.float32]:
        """Returns n + s (v - n), each patch of which is as long a vector as that of v."""
        guided = patchify(super().apply_guidance(velocity, negative, scale), PATCH_SIZE)
        lengths = (np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (patchify(velocity, PATCH_SIZE), guided))
        expected, actual = lengths
        return unpatchify(guided * (expected / actual), velocity.shape, PATCH_SIZE)

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> NDArray[np.float32]:
        """Runs the text encoder, and drops the states of the template's first part. Returns (1, L, width)."""
        return run("text_encoder", {"ids": tokens["tokenizer"].ids[None]})[:, NUM_DROPPED:]

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: NDArray[np.float32],
        guidance: float = 0.0,  # noqa: ARG002  the transformer takes none
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0."""
        rows, columns = latents.shape[2] // PATCH_SIZE, latents.shape[3] // PATCH_SIZE
        inputs: dict[str, NDArray[Any]] = {
            "patches": patchify(latents, PATCH_SIZE, channels_last=False)[None],
            "timestep": np.array([np.float32(timestep) / 1000], np.float32),
            "hidden": prompt,
            **name_tables(*self._compute_tables(rows, columns, prompt.shape[1])),
        }
        return unpatchify(run("transformer", inputs)[0], latents.shape, PATCH_SIZE, channels_last=False)

    def _compute_tables(
        self, rows: int, columns: int, num_tokens: int
    ) -> tuple[tuple[Table, Table], tuple[Table, Table]]:
        """Computes the tables of the image, whose middle is at 0, and of the prompt, which lies beyond its corner."""
        places = np.indices((rows, columns)).reshape(2, -1).T
        image = np.zeros((rows * columns, 3), np.int64)
        image[:, 1:] = places - [rows - rows // 2, columns - columns // 2]
        text = np.repeat(max(rows // 2, columns // 2) + np.arange(num_tokens)[:, None], 3, axis=1)
        return self._rotary.compute(image), self._rotary.compute(text)
