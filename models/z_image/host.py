"""What the host computes around Z-Image's graphs: patches, pads, positions, rotary tables, and the picture's 8 bits.

The arithmetic is that of diffusers' ZImageTransformer2DModel and ZImagePipeline, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..base.host import RunGraph
from ..shared.vae_tiling import plan_decoder_stages

TOKEN_MULTIPLE = 32  # tokens of the image and of the caption are padded to a multiple of it
Table = NDArray[np.float32]
Scalar = TypeVar("Scalar", np.float32, np.int64)


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it: states (1, L, dim), and cos and sin (L, head / 2)."""

    states: NDArray[np.float32]
    cos: Table
    sin: Table


@dataclass(frozen=True)
class RotaryTables:
    """Rotary embedding over several axes: the width of each in a head, and the base of the frequencies."""

    widths: tuple[int, ...]
    theta: float

    def compute(self, positions: NDArray[np.int64]) -> tuple[Table, Table]:
        """Cos and sin (tokens, head / 2) of positions (tokens, axes).

        Angles are position · theta^(-2i/width), multiplied in float64 and then rounded, as diffusers does.
        """
        axes = zip(positions.T, self.widths, strict=True)
        angles = [np.outer(places, self._frequencies(width)).astype(np.float32) for places, width in axes]
        along = np.concatenate(angles, axis=1)
        return np.cos(along), np.sin(along)

    def _frequencies(self, width: int) -> NDArray[np.float64]:
        return 1.0 / self.theta ** (np.arange(0, width, 2, dtype=np.float64) / width)


class Host:
    """Host of ZImagePipeline, batch 1 and no guidance; all floats are float32."""

    max_tokens = 512
    chat_template_kwargs: Mapping[str, Any] = {"enable_thinking": True}
    decoder_graph = "vae_decoder"
    encoder_graph = "vae_encoder"

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer, self._vae = configs["transformer"], configs["vae"]
        self._rope = RotaryTables(tuple(transformer["axes_dims"]), float(transformer["rope_theta"]))
        self._channels = int(transformer["in_channels"])
        self._patch = int(transformer["all_patch_size"][0])
        self._scale = 2 ** (len(self._vae["block_out_channels"]) - 1)
        self._scaling, self._shift = (np.float32(self._vae[key]) for key in ("scaling_factor", "shift_factor"))
        self.decoder_stages = plan_decoder_stages(self._vae)

    @property
    def native_resolution(self) -> int:
        """The side in pixels that the pipeline was made for."""
        return int(self._vae["sample_size"])

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """(1, channels, height / 8, width / 8).

        Raises:
            UserError: a side is not a multiple of a patch's 16 pixels.
        """
        multiple = self._scale * self._patch
        if height % multiple or width % multiple or min(height, width) <= 0:
            raise UserError(
                f"A picture of {height}x{width} cannot be painted; both sides must be multiples of {multiple}."
            )
        return 1, self._channels, height // self._scale, width // self._scale

    def count_image_tokens(self, height: int, width: int) -> int:
        """Patches of a picture, pads left out."""
        _, _, rows, columns = self.latent_shape(height, width)
        return rows * columns // self._patch**2

    def encode_prompt(self, run: RunGraph, ids: NDArray[np.int64]) -> EncodedPrompt:
        """Reads a prompt: the text encoder, which is causal and so sees no pads, then the caption's refiner."""
        rows, pad = pad_to_multiple(ids[:, None])
        hidden = run("text_encoder", {"ids": rows.T})
        cos, sin = self._rope.compute(make_caption_positions(len(rows)))
        caption = run("caption", {"hidden": hidden, "pad": pad[None], "cos": cos, "sin": sin})
        return EncodedPrompt(caption, cos, sin)

    def predict_velocity(
        self, run: RunGraph, latents: NDArray[np.float32], timestep: float, prompt: EncodedPrompt
    ) -> NDArray[np.float32]:
        """The velocity at a timestep 1000 ... 0; the transformer's own runs the other way, in time and in sign."""
        patches, pad = pad_to_multiple(patchify(latents, self._patch))
        rows, columns = latents.shape[2] // self._patch, latents.shape[3] // self._patch
        cos, sin = _compute_image_tables(self._rope, rows, columns, len(prompt.cos))
        inputs: dict[str, NDArray[Any]] = {
            "patches": patches[None],
            "pad": pad[None],
            "timestep": np.array([(1000 - np.float32(timestep)) / 1000], np.float32),
            "caption": prompt.states,
            "image_cos": cos,
            "image_sin": sin,
            "caption_cos": prompt.cos,
            "caption_sin": prompt.sin,
        }
        return -unpatchify(run("transformer", inputs)[0, : rows * columns], latents.shape, self._patch)

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The picture (height, width, 3) of finished latents (1, channels, height / 8, width / 8)."""
        image = run(self.decoder_graph, {"latents": latents / self._scaling + self._shift})[0]
        shown: NDArray[np.float32] = (image * np.float32(0.5) + np.float32(0.5)).clip(0, 1)
        return np.rint(shown * 255).astype(np.uint8).transpose(1, 2, 0)

    def encode_image(self, run: RunGraph, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The likeliest latents (1, channels, height / 8, width / 8) of a picture (height, width, 3)."""
        image = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255) * 2 - 1
        found: NDArray[np.float32] = (run(self.encoder_graph, {"image": image}) - self._shift) * self._scaling
        return found


def patchify(latents: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """(1, channels, height, width) as rows of patches (tokens, patch · patch · channels), channels running fastest."""
    _, channels, height, width = latents.shape
    grid = latents.reshape(channels, height // patch, patch, width // patch, patch)
    return grid.transpose(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)


def unpatchify(patches: NDArray[np.float32], shape: tuple[int, ...], patch: int) -> NDArray[np.float32]:
    """The inverse of `to_patches`, for latents of a shape."""
    _, channels, height, width = shape
    grid = patches.reshape(height // patch, width // patch, patch, patch, channels)
    return grid.transpose(4, 0, 2, 1, 3).reshape(shape)


def pad_to_multiple(rows: NDArray[Scalar]) -> tuple[NDArray[Scalar], NDArray[np.float32]]:
    """Rows (tokens, width) with the last repeated up to a multiple of 32, and (tokens, 1): 1 where a row is pad."""
    more = -len(rows) % TOKEN_MULTIPLE
    pad = np.zeros((len(rows) + more, 1), np.float32)
    pad[len(rows) :] = 1
    return np.concatenate([rows, np.repeat(rows[-1:], more, axis=0)]), pad


def make_caption_positions(length: int) -> NDArray[np.int64]:
    """Of the caption's tokens and pads (length, 3): 1 ... length on the first axis."""
    positions = np.zeros((length, 3), np.int64)
    positions[:, 0] = np.arange(1, length + 1)
    return positions


def make_image_positions(rows: int, columns: int, caption: int) -> NDArray[np.int64]:
    """Of the image's tokens and pads (tokens, 3): the end of the caption, row, column; pads stand at 0, 0, 0."""
    positions = np.zeros((rows * columns + -rows * columns % TOKEN_MULTIPLE, 3), np.int64)
    grid = np.indices((rows, columns)).reshape(2, -1).T
    positions[: len(grid), 0] = caption + 1
    positions[: len(grid), 1:] = grid
    return positions


@lru_cache(maxsize=4)
def _compute_image_tables(rope: RotaryTables, rows: int, columns: int, caption: int) -> tuple[Table, Table]:
    """The same at every step of a picture."""
    return rope.compute(make_image_positions(rows, columns, caption))
