"""The host of Stable Diffusion 3: patches, positions and the prompt's states around the graphs, and the 8-bit image.

It computes in numpy what SD3Transformer2DModel and StableDiffusion3Pipeline of diffusers compute in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.host import RunGraph
from ..base.image_size import read_patch_size
from ..base.prompt_tokens import PromptFormat, TokensByTokenizer
from ..shared.autoencoder_host import AutoencoderHost
from ..shared.latents import patchify, unpatchify

T5_TOKENS = 256  # which the pipeline pads prompts to, unless it is given another number
CLIP_ENCODERS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
T5_TOKENIZER, T5_ENCODER = "tokenizer_3", "text_encoder_3"


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        hidden: Hidden states of the CLIP encoders, concatenated by channels and filled with zeros, followed by those of
            T5, (1, L, width).
        pooled: Embeddings of the CLIP encoders, (1, width).
    """

    hidden: NDArray[np.float32]
    pooled: NDArray[np.float32]


class SD3Host(AutoencoderHost):
    """Host of StableDiffusion3Pipeline."""

    passes_sigmas = False

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer = configs["transformer"]
        self._side = int(transformer["pos_embed_max_size"])
        super().__init__(
            configs,
            int(transformer["in_channels"]),
            read_patch_size(transformer["patch_size"]),
            (self._side, self._side),
            transformer.get("sample_size"),
        )
        self._width = int(transformer["joint_attention_dim"])
        self._has_t5 = T5_ENCODER in configs
        formats = [
            PromptFormat(tokenizer, int(configs[encoder]["max_position_embeddings"]), is_padded=True)
            for tokenizer, encoder in CLIP_ENCODERS
        ]
        if self._has_t5:
            formats.append(PromptFormat(T5_TOKENIZER, T5_TOKENS, is_padded=True))
        self.prompt_formats = tuple(formats)

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> EncodedPrompt:
        """Runs the text encoders; zeros stand in place of T5's states in a pipeline without T5."""
        clip = [run.run(encoder, {"ids": tokens[tokenizer].ids[None]}) for tokenizer, encoder in CLIP_ENCODERS]
        hidden = np.concatenate([outputs[0] for outputs in clip], axis=2)
        pooled = np.concatenate([outputs[1] for outputs in clip], axis=1)
        hidden = np.pad(hidden, ((0, 0), (0, 0), (0, self._width - hidden.shape[2])))
        if self._has_t5:
            t5 = run(T5_ENCODER, {"ids": tokens[T5_TOKENIZER].ids[None]})
        else:
            t5 = np.zeros((1, T5_TOKENS, self._width), np.float32)
        return EncodedPrompt(np.concatenate([hidden, t5], axis=1), pooled)

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: EncodedPrompt,
        guidance: float = 0.0,  # noqa: ARG002  no model of this family was distilled with one
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0."""
        counts = [length // self._patch_size for length in latents.shape[2:]]
        rows, columns = ((self._side - count) // 2 + np.arange(count) for count in counts)
        inputs: dict[str, NDArray[Any]] = {
            "patches": patchify(latents, self._patch_size, channels_last=False)[None],
            "positions": (rows[:, None] * self._side + columns).reshape(-1),
            "timestep": np.array([timestep], np.float32),
            "hidden": prompt.hidden,
            "pooled": prompt.pooled,
        }
        return unpatchify(run("transformer", inputs)[0], latents.shape, self._patch_size)
