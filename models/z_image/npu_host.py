"""What the host computes around Z-Image's graphs on an NPU: besides what `z_image_host` does, embeddings of the prompt,
the timestep's sines, and what is masked, as all shapes are fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..base.host import RunGraph
from ..shared.vae_tiling_npu import plan_decoder_tiling
from . import host
from .host import (
    TOKEN_MULTIPLE,
    Table,
    make_caption_positions,
    make_image_positions,
    pad_to_multiple,
    patchify,
    unpatchify,
)

MASK_VALUE = np.float32(-30)  # as in z_image_npu_graphs
NUM_FREQUENCIES = 128  # of the timestep, a cosine and a sine each
MAX_PERIOD = 10000.0  # the largest of their periods, over 2π


@dataclass(frozen=True)
class MaskedPrompt:
    """A prompt as the transformer reads it: states (1, L, dim), of which `length` are read."""

    states: NDArray[np.float32]
    length: int


class Host(host.Host):
    """Host of ZImagePipeline for pictures of one size and prompts of up to `tokens`; batch 1 and no guidance."""

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        size: tuple[int, int],
        max_prompt_tokens: int,
        embeddings: NDArray[np.floating[Any]],
        tile_size: int | None = None,
    ) -> None:
        super().__init__(configs)
        if max_prompt_tokens % TOKEN_MULTIPLE or max_prompt_tokens <= 0:
            raise UserError(f"Prompts of {max_prompt_tokens} tokens cannot be; give a multiple of {TOKEN_MULTIPLE}.")
        self._size, self._embeddings = size, embeddings
        self._timestep_scale = np.float32(configs["transformer"]["t_scale"])
        self.max_tokens = max_prompt_tokens
        _, _, rows, columns = super().latent_shape(*size)
        self.decoder_tiling = plan_decoder_tiling(configs["vae"], (rows, columns), tile_size)

    @property
    def native_resolution(self) -> int:
        """The side in pixels of a square picture; `latent_shape` refuses where the size is none."""
        return max(self._size)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """T, L: tokens of a prompt. N: patches of a picture. h, w: of its latents. Those of a tiling, where there is
        one."""
        _, _, rows, columns = super().latent_shape(*self._size)
        patches = rows * columns // self._patch**2
        patches += -patches % TOKEN_MULTIPLE
        sizes = {"T": self.max_tokens, "L": self.max_tokens, "N": patches, "h": rows, "w": columns}
        return sizes | dict(self.decoder_tiling.axis_sizes if self.decoder_tiling else {})

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """(1, channels, height / 8, width / 8).

        Raises:
            UserError: that is not the size that the graphs were made for.
        """
        if (height, width) != self._size:
            high, wide = self._size
            raise UserError(f"These graphs paint {high}x{wide} only, not {height}x{width}; export another size.")
        return super().latent_shape(height, width)

    def encode_prompt(self, run: RunGraph, ids: NDArray[np.int64]) -> Any:
        """Reads a prompt, giving a `Caption`: the text encoder, then the caption's refiner."""
        states = np.zeros((1, self.max_tokens, self._embeddings.shape[1]), np.float32)
        states[0, : len(ids)] = self._embeddings[ids]
        hidden = run("text_encoder", {"embeddings": states})[0, : len(ids)]
        rows, pad = pad_to_multiple(hidden)
        length = len(rows)
        cos, sin = self._rope.compute(make_caption_positions(self.max_tokens))
        inputs = {
            "hidden": _pad_rows(rows, self.max_tokens)[None],
            "pad": _pad_rows(pad, self.max_tokens)[None],
            "cos": cos,
            "sin": sin,
            "mask": _make_mask(self.max_tokens, length),
        }
        return MaskedPrompt(_pad_rows(run("caption", inputs)[0], self.max_tokens)[None], length)

    def predict_velocity(
        self, run: RunGraph, latents: NDArray[np.float32], timestep: float, prompt: Any
    ) -> NDArray[np.float32]:
        """The velocity at a timestep 1000 ... 0; the transformer's own runs the other way, in time and in sign."""
        patches, pad = pad_to_multiple(patchify(latents, self._patch))
        rows, columns = latents.shape[2] // self._patch, latents.shape[3] // self._patch
        count = len(patches)
        places = np.concatenate(
            [make_image_positions(rows, columns, prompt.length), make_caption_positions(self.max_tokens)]
        )
        cos, sin = self._rope.compute(places)
        time = compute_timestep_sinusoids((1000 - np.float32(timestep)) / 1000 * self._timestep_scale)[None]
        inputs: dict[str, NDArray[Any]] = {
            "patches": patches[None],
            "pad": pad[None],
            "time": time,
            "cos": cos[:count],
            "sin": sin[:count],
            "mask": _make_mask(count, count),
        }
        states = np.concatenate([run("image", inputs), prompt.states], axis=1)
        inputs = {"states": states, "time": time, "cos": cos, "sin": sin}
        inputs["mask"] = _make_mask(len(places), count + prompt.length)
        return -unpatchify(run("transformer", inputs)[0, : rows * columns], latents.shape, self._patch)


def compute_timestep_sinusoids(time: np.floating[Any]) -> Table:
    """Cosines and sines (256,) of a time at frequencies from 1 down to 1 / 10000."""
    frequencies = np.exp(-np.log(MAX_PERIOD) * np.arange(NUM_FREQUENCIES) / NUM_FREQUENCIES).astype(np.float32)
    angles = np.float32(time) * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)])


def _pad_rows(rows: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Rows (n, width) with zeros after them, or as many as there should be."""
    found = np.zeros((length, rows.shape[1]), np.float32)
    found[: len(rows)] = rows[:length]
    return found


def _make_mask(tokens: int, read: int) -> NDArray[np.float32]:
    """(1, 1, 1, tokens): 0 for the first ones, which are read."""
    mask = np.zeros((1, 1, 1, tokens), np.float32)
    mask[..., read:] = MASK_VALUE
    return mask
