"""The host of Z-Image: patches, padding, positions and rotary tables around the graphs, and the 8-bit image.

It computes in numpy what ZImageTransformer2DModel and ZImagePipeline of diffusers compute in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...common.validation import format_value
from ..base.host import RunGraph
from ..base.image_size import read_patch_size
from ..base.prompt_tokens import PromptFormat, TokensByTokenizer
from ..shared.latent_host import LatentHost
from ..shared.latents import patchify, read_factor, unpatchify
from ..shared.rotary_tables import RotaryTables, Table
from ..shared.vae_tiling import plan_decoder_stages

TOKEN_MULTIPLE = 32  # image tokens and prompt tokens are padded to a multiple of this
MAX_SEQUENCE_LENGTH = 512  # tokens at which the pipeline truncates prompts unless it is given another number
Scalar = TypeVar("Scalar", np.float32, np.int64)


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        states: Refined states, (1, L, dim).
        cos: Cosines of the positions, (L, head size / 2).
        sin: Sines of the positions, (L, head size / 2).
    """

    states: NDArray[np.float32]
    cos: Table
    sin: Table


class ZImageHost(LatentHost):
    """Host of ZImagePipeline for batch size 1; all floats are float32."""

    encoder_graph = "vae_encoder"

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer, self._vae = configs["transformer"], configs["vae"]
        self._rotary = RotaryTables(tuple(transformer["axes_dims"]), float(transformer["rope_theta"]))
        channels, patch_size = int(transformer["in_channels"]), read_patch_size(transformer["all_patch_size"][0])
        if not self._vae["block_out_channels"]:
            raise ValueError("block_out_channels is []")
        vae_scale = 2 ** (len(self._vae["block_out_channels"]) - 1)
        self.latent_scale = read_factor(self._vae, "scaling_factor")
        self.latent_shift = read_factor(self._vae, "shift_factor")
        if not self.latent_scale:
            raise ValueError("scaling_factor is 0")
        self.decoder_stages = plan_decoder_stages(self._vae)
        self.max_tokens = compute_max_tokens(configs)
        lengths = _read_table_lengths(configs)
        super().__init__(channels, vae_scale, patch_size, max_patches=lengths[1:] if lengths else None)

    @property
    def prompt_formats(self) -> tuple[PromptFormat, ...]:
        """A prompt is a message of a chat."""
        kwargs = {"enable_thinking": True}
        return (
            PromptFormat(
                "tokenizer", self.max_tokens, chat_template_kwargs=kwargs, length_argument="max_sequence_length"
            ),
        )

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the pipeline was trained for."""
        return int(self._vae["sample_size"])

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> EncodedPrompt:
        """Runs the text encoder, which is causal and so needs no mask for pads, and the text refiner."""
        rows, pad = pad_to_multiple(tokens["tokenizer"].ids[:, None])
        hidden = run("text_encoder", {"ids": rows.T})
        cos, sin = self._rotary.compute(make_caption_positions(len(rows)))
        states = run("caption", {"hidden": hidden, "pad": pad[None], "cos": cos, "sin": sin})
        return EncodedPrompt(states, cos, sin)

    def predict_velocity(
        self,
        run: RunGraph,
        latents: NDArray[np.float32],
        timestep: float,
        prompt: EncodedPrompt,
        guidance: float = 0.0,  # noqa: ARG002  no model of this family was distilled with one
    ) -> NDArray[np.float32]:
        """Returns the velocity at a timestep from 1000 to 0.

        The transformer counts time in the other direction, so both time and sign are reversed.
        """
        patches, pad = pad_to_multiple(patchify(latents, self._patch_size))
        rows, columns = latents.shape[2] // self._patch_size, latents.shape[3] // self._patch_size
        cos, sin = _compute_image_tables(self._rotary, rows, columns, len(prompt.cos))
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
        return -unpatchify(run("transformer", inputs)[0, : rows * columns], latents.shape, self._patch_size)

    def is_guided(self, guidance: float) -> bool:
        """Whether the scale is not 0."""
        return guidance > 0

    def apply_guidance(
        self, velocity: NDArray[np.float32], negative: NDArray[np.float32], scale: float
    ) -> NDArray[np.float32]:
        """Returns v + s (v - n), as ZImagePipeline computes it: its scale s is 0, not 1, without guidance."""
        return velocity + np.float32(scale) * (velocity - negative)


def compute_max_tokens(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Computes at how many tokens a prompt is truncated.

    The pipeline's own number is lowered to the positions that the text encoder was made for, and to what the
    transformer's table holds: the prompt's tokens, padded, take the positions from 1 on, and the image the one after
    them.

    Args:
        configs: Configs of the components, by folder name; older artifacts lack that of the text encoder.
    """
    limits = [MAX_SEQUENCE_LENGTH]
    if positions := configs.get("text_encoder", {}).get("max_position_embeddings"):
        limits.append(int(positions))
    if lengths := _read_table_lengths(configs):
        limits.append((lengths[0] - 2) // TOKEN_MULTIPLE * TOKEN_MULTIPLE)
    return min(limits)


def _read_table_lengths(configs: Mapping[str, Mapping[str, Any]]) -> tuple[int, int, int] | None:
    """How many positions of prompts, rows and columns the transformer has tables for; None in older artifacts."""
    lengths = configs["transformer"].get("axes_lens")
    if not lengths:
        return None
    is_list = isinstance(lengths, list | tuple) and len(lengths) == 3
    if not is_list or not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ValueError(f"axes_lens is {format_value(lengths)} instead of three positive whole numbers")
    rows, columns = lengths[1:]
    return lengths[0], rows, columns


def pad_to_multiple(rows: NDArray[Scalar]) -> tuple[NDArray[Scalar], NDArray[np.float32]]:
    """Repeats the last row up to a multiple of 32 rows.

    Args:
        rows: Rows, (tokens, width).

    Returns:
        The padded rows, and (padded tokens, 1) with 1 at pads and 0 elsewhere.
    """
    pads = -len(rows) % TOKEN_MULTIPLE
    is_pad = np.zeros((len(rows) + pads, 1), np.float32)
    is_pad[len(rows) :] = 1
    return np.concatenate([rows, np.repeat(rows[-1:], pads, axis=0)]), is_pad


def make_caption_positions(length: int) -> NDArray[np.int64]:
    """Returns the positions (length, 3) of prompt tokens and pads: 1 to length on the first axis."""
    positions = np.zeros((length, 3), np.int64)
    positions[:, 0] = np.arange(1, length + 1)
    return positions


def make_image_positions(rows: int, columns: int, caption_length: int) -> NDArray[np.int64]:
    """Returns the positions (tokens, 3) of image tokens and pads.

    An image token is at (caption_length + 1, row, column), a pad at (0, 0, 0).
    """
    positions = np.zeros((rows * columns + -rows * columns % TOKEN_MULTIPLE, 3), np.int64)
    grid = np.indices((rows, columns)).reshape(2, -1).T
    positions[: len(grid), 0] = caption_length + 1
    positions[: len(grid), 1:] = grid
    return positions


@lru_cache(maxsize=4)
def _compute_image_tables(rotary: RotaryTables, rows: int, columns: int, caption_length: int) -> tuple[Table, Table]:
    """Computes the tables of the image tokens, which are the same at every step."""
    return rotary.compute(make_image_positions(rows, columns, caption_length))
