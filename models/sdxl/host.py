"""The host of Stable Diffusion XL: the prompt's states and the sizes that the UNet depends on, and the 8-bit image.

It computes in numpy what StableDiffusionXLPipeline of diffusers computes in torch.
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

CLIP_ENCODERS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
MAX_PERIOD = 10000.0  # the longest period of the guidance's embedding, divided by 2 pi
GUIDANCE_FACTOR = 1000.0  # of the guidance scale, less 1, before it is embedded


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the UNet reads it.

    Attributes:
        hidden: Hidden states of both CLIP encoders, concatenated by channels, (1, L, width).
        pooled: Embedding of the second CLIP encoder, (1, width).
    """

    hidden: NDArray[np.float32]
    pooled: NDArray[np.float32]


class SDXLHost(AutoencoderHost):
    """Host of StableDiffusionXLPipeline."""

    scheduler_class = "EulerDiscreteScheduler"
    floors_image_steps = True

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        unet, vae = configs["unet"], configs["vae"]
        super().__init__(configs, int(unet["in_channels"]), 1, sample_size=unet.get("sample_size"))
        if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
            raise ValueError("latents_mean and latents_std are set, but not supported")
        self.latent_shift = np.float32(0)  # whatever the config says, the pipeline shifts nothing
        self._guidance_width = int(unet.get("time_cond_proj_dim") or 0)
        self._has_zero_negative = bool(configs.get("pipeline", {}).get("force_zeros_for_empty_prompt", True))
        self.prompt_formats = tuple(
            PromptFormat(tokenizer, int(configs[encoder]["max_position_embeddings"]), is_padded=True)
            for tokenizer, encoder in CLIP_ENCODERS
        )

    def is_guided(self, guidance: float) -> bool:
        """Whether the scale is above 1, and the UNet takes none itself."""
        return guidance > 1 and not self._guidance_width

    def choose_negative_prompt(self, text: str) -> str | None:
        """Returns None where the pipeline puts zeros in place of the states of an empty prompt."""
        return text or (None if self._has_zero_negative else "")

    def zero_prompt(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """Returns zeros in place of all states."""
        return EncodedPrompt(np.zeros_like(prompt.hidden), np.zeros_like(prompt.pooled))

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> EncodedPrompt:
        """Runs both text encoders."""
        first, second = (run.run(encoder, {"ids": tokens[name].ids[None]}) for name, encoder in CLIP_ENCODERS)
        return EncodedPrompt(np.concatenate([first[0], second[0]], axis=2), second[1])

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: EncodedPrompt,
        guidance: float = 0.0,
    ) -> NDArray[np.float32]:
        """Returns what the UNet predicts, mostly noise, at a timestep from 999 to 0."""
        size = [side * self._vae_scale for side in latents.shape[2:]]
        inputs: dict[str, NDArray[Any]] = {
            "latents": latents,
            "timestep": np.array([timestep], np.float32),
            "hidden": prompt.hidden,
            "pooled": prompt.pooled,
            "time_ids": np.array([[*size, 0, 0, *size]], np.float32),  # original size, crop, target size
        }
        if self._guidance_width:
            inputs["guidance"] = embed_guidance(guidance, self._guidance_width)
        return run("unet", inputs)


def embed_guidance(guidance: float, width: int) -> NDArray[np.float32]:
    """Returns the sines and cosines (1, width) of a guidance scale, at frequencies from 1 down to 1 / 10000."""
    count = width // 2
    frequencies = np.exp(np.arange(count, dtype=np.float32) * np.float32(-np.log(MAX_PERIOD) / (count - 1)))
    angles = np.float32((guidance - 1) * GUIDANCE_FACTOR) * frequencies
    embedding: NDArray[np.float32] = np.concatenate([np.sin(angles), np.cos(angles)])
    return np.pad(embedding, (0, width % 2))[None]
