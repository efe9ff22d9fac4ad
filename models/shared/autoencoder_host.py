"""The part of a host that the autoencoder decides: sizes of images and latents, and decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.default_host import DefaultHost
from ..base.host import RunGraph
from ..base.image_size import require_size
from ..base.tiling import DecoderStages
from .latents import decode_pixels, read_factor
from .vae_tiling import NUM_BLOCKS, plan_decoder_stages

Configs = Mapping[str, Mapping[str, Any]]
DEFAULT_RESOLUTION = 1024  # pixels: what pipelines generate if neither a config nor a caller names a size


class AutoencoderHost(DefaultHost):
    """A host of a pipeline whose latents AutoencoderKL decodes, for batch size 1.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.
        channels: Channels of the latents.
        patch_size: Rows and columns of latents in a patch.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.
    """

    def __init__(
        self, configs: Configs, channels: int, patch_size: int, max_patches: tuple[int, int] | None = None
    ) -> None:
        vae = configs["vae"]
        num_blocks = len(vae["block_out_channels"])
        if not num_blocks:
            raise ValueError("block_out_channels is []")
        self._channels, self._patch_size, self._max_patches = channels, patch_size, max_patches
        self._vae_scale = 2 ** (num_blocks - 1)
        self._native_resolution = int(vae.get("sample_size") or DEFAULT_RESOLUTION)
        self._scaling_factor = read_factor(vae, "scaling_factor")
        self._shift_factor = read_factor(vae, "shift_factor") if vae.get("shift_factor") else np.float32(0)
        if not self._scaling_factor:
            raise ValueError("scaling_factor is 0")
        self.decoder_stages: DecoderStages | None = plan_decoder_stages(vae) if num_blocks == NUM_BLOCKS else None

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the pipeline was trained for."""
        return self._native_resolution

    @property
    def size_multiple(self) -> int:
        """Side of a patch in pixels."""
        multiple: int = self._vae_scale * self._patch_size
        return multiple

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Returns (1, channels, height / 8, width / 8).

        Raises:
            UserError: A side is not a multiple of a patch, or beyond the denoiser's position tables.
        """
        require_size(height, width, self.size_multiple, self._max_patches)
        return 1, self._channels, height // self._vae_scale, width // self._vae_scale

    def count_image_tokens(self, height: int, width: int) -> int:
        """Returns the number of patches of an image."""
        _, _, rows, columns = self.latent_shape(height, width)
        return rows * columns // self._patch_size**2

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decodes latents (1, channels, height / 8, width / 8) to an image (height, width, 3)."""
        return decode_pixels(run(self.decoder_graph, {"latents": latents / self._scaling_factor + self._shift_factor}))
