"""The host of Z-Image on an NPU, where all shapes are fixed.

Besides what `host` does, it looks up the token embeddings, computes the sinusoids of the timestep, and makes the masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..base.host import RunGraph
from ..base.prompt_tokens import TokensByTokenizer
from ..shared.latents import patchify, unpatchify
from ..shared.rotary_tables import Table
from ..shared.vae_tiling_npu import plan_decoder_tiling
from .host import (
    TOKEN_MULTIPLE,
    ZImageHost,
    make_caption_positions,
    make_image_positions,
    pad_to_multiple,
)

MASK_VALUE = np.float32(-30)  # as in npu_graphs
NUM_FREQUENCIES = 128  # of the timestep embedding; each has a cosine and a sine
MAX_PERIOD = 10000.0  # the longest period, divided by 2 pi


@dataclass(frozen=True)
class MaskedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        states: Refined states, (1, L, dim).
        length: Number of states that are not masked.
    """

    states: NDArray[np.float32]
    length: int


class ZImageNpuHost(ZImageHost):
    """Host of ZImagePipeline for images of one size, batch size 1.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.
        size: Height and width of all images, in pixels.
        max_prompt_tokens: Maximum number of tokens of a prompt, a multiple of 32.
        embeddings: Token embeddings, (vocabulary, width).
        tile_size: Side in pixels of the tiles that images are decoded in; None decodes them whole.

    Raises:
        UserError: `max_prompt_tokens` is not a multiple of 32, or the decoder cannot run in tiles.
    """

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
            raise UserError(
                f"Invalid number of prompt tokens {max_prompt_tokens}: it must be a multiple of {TOKEN_MULTIPLE}."
            )
        self._size, self._embeddings = size, embeddings
        self._timestep_scale = np.float32(configs["transformer"]["t_scale"])
        self._num_positions = max_prompt_tokens  # of the graphs
        self.max_tokens = min(max_prompt_tokens, self.max_tokens)
        _, _, rows, columns = super().latent_shape(*size)
        self.decoder_tiling = plan_decoder_tiling(configs["vae"], (rows, columns), tile_size)

    @property
    def native_resolution(self) -> int:
        """The longer side in pixels; `latent_shape` refuses the square if images are not square."""
        return max(self._size)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Sizes of the graphs' axes: T and L (prompt tokens), N (image tokens), h and w (latents), and the tiling's."""
        _, _, rows, columns = super().latent_shape(*self._size)
        tokens = rows * columns // self._patch_size**2
        tokens += -tokens % TOKEN_MULTIPLE
        sizes = {"T": self._num_positions, "L": self._num_positions, "N": tokens, "h": rows, "w": columns}
        return sizes | dict(self.decoder_tiling.axis_sizes if self.decoder_tiling else {})

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Returns (1, channels, height / 8, width / 8).

        Raises:
            UserError: The graphs were exported for another size.
        """
        if (height, width) != self._size:
            exported = "x".join(map(str, self._size))
            raise UserError(
                f"The graphs were exported for images of {exported}, but {height}x{width} was requested. "
                "Export them for that size as well."
            )
        return super().latent_shape(height, width)

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> Any:
        """Runs the text encoder and the text refiner, and returns a `MaskedPrompt`."""
        ids = tokens["tokenizer"].ids
        states = np.zeros((1, self._num_positions, self._embeddings.shape[1]), np.float32)
        states[0, : len(ids)] = self._embeddings[ids]
        hidden = run("text_encoder", {"embeddings": states})[0, : len(ids)]
        rows, pad = pad_to_multiple(hidden)
        length = len(rows)
        cos, sin = self._rotary.compute(make_caption_positions(self._num_positions))
        inputs = {
            "hidden": _pad_rows(rows, self._num_positions)[None],
            "pad": _pad_rows(pad, self._num_positions)[None],
            "cos": cos,
            "sin": sin,
            "mask": _make_mask(self._num_positions, length),
        }
        return MaskedPrompt(_pad_rows(run("caption", inputs)[0], self._num_positions)[None], length)

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: Any,
        guidance: float = 0.0,  # noqa: ARG002  no model of this family was distilled with one
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0.

        The transformer counts time in the other direction, so both time and sign are reversed.
        """
        patches, pad = pad_to_multiple(patchify(latents, self._patch_size))
        rows, columns = latents.shape[2] // self._patch_size, latents.shape[3] // self._patch_size
        count = len(patches)
        positions = np.concatenate(
            [make_image_positions(rows, columns, prompt.length), make_caption_positions(self._num_positions)]
        )
        cos, sin = self._rotary.compute(positions)
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
        inputs["mask"] = _make_mask(len(positions), count + prompt.length)
        return -unpatchify(run("transformer", inputs)[0, : rows * columns], latents.shape, self._patch_size)


def compute_timestep_sinusoids(time: np.floating[Any]) -> Table:
    """Returns the cosines and sines (256,) of a time at frequencies from 1 down to 1 / 10000."""
    frequencies = np.exp(-np.log(MAX_PERIOD) * np.arange(NUM_FREQUENCIES) / NUM_FREQUENCIES).astype(np.float32)
    angles = np.float32(time) * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)])


def _pad_rows(rows: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Pads rows (n, width) with zeros, or truncates them, to `length` rows."""
    output = np.zeros((length, rows.shape[1]), np.float32)
    output[: len(rows)] = rows[:length]
    return output


def _make_mask(tokens: int, length: int) -> NDArray[np.float32]:
    """Returns (1, 1, 1, tokens) with 0 for the first `length` tokens and a large negative number for the others."""
    mask = np.zeros((1, 1, 1, tokens), np.float32)
    mask[..., length:] = MASK_VALUE
    return mask
