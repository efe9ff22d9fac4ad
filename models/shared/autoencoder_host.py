"""The part of a host that the autoencoder decides: sizes, the scale of latents, and decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.host import RunGraph
from ..base.tiling import DecoderStages
from .latent_host import DEFAULT_RESOLUTION, LatentHost
from .latents import decode_pixels, read_factor
from .vae_tiling import NUM_BLOCKS, plan_decoder_stages

Configs = Mapping[str, Mapping[str, Any]]


class AutoencoderHost(LatentHost):
    """A host of a pipeline whose latents AutoencoderKL decodes, for batch size 1.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.
        channels: Channels of the latents.
        patch_size: Rows and columns of latents in a patch.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.
        sample_size: Rows and columns of the latents that the denoiser was trained for, if its config has one number.
            The VAE's own may be that of another pipeline.
    """

    def __init__(
        self,
        configs: Configs,
        channels: int,
        patch_size: int,
        max_patches: tuple[int, int] | None = None,
        sample_size: Any = None,
    ) -> None:
        vae = configs["vae"]
        num_blocks = len(vae["block_out_channels"])
        if not num_blocks:
            raise ValueError("block_out_channels is []")
        vae_scale = 2 ** (num_blocks - 1)
        native = int(vae.get("sample_size") or DEFAULT_RESOLUTION)
        if isinstance(sample_size, int) and sample_size > 0:
            native = sample_size * vae_scale
        super().__init__(channels, vae_scale, patch_size, native, max_patches)
        self._scaling_factor = read_factor(vae, "scaling_factor")
        self._shift_factor = read_factor(vae, "shift_factor") if vae.get("shift_factor") else np.float32(0)
        if not self._scaling_factor:
            raise ValueError("scaling_factor is 0")
        self.decoder_stages: DecoderStages | None = plan_decoder_stages(vae) if num_blocks == NUM_BLOCKS else None

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decodes latents (1, channels, height / 8, width / 8) to an image (height, width, 3)."""
        return decode_pixels(run(self.decoder_graph, {"latents": latents / self._scaling_factor + self._shift_factor}))
