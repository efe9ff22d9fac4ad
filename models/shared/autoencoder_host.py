"""The part of a host that the autoencoder decides: sizes, and how it scales latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.tiling import DecoderStages
from .latent_host import DEFAULT_RESOLUTION, LatentHost
from .latents import read_factor
from .vae_tiling import NUM_BLOCKS, plan_decoder_stages

Configs = Mapping[str, Mapping[str, Any]]


class AutoencoderHost(LatentHost):
    """A host of a pipeline whose images AutoencoderKL encodes and decodes, for batch size 1.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.
        channels: Channels of the latents.
        patch_size: Rows and columns of latents in a patch.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.
        sample_size: Rows and columns of the latents that the denoiser was trained for, if its config has one number.
            The VAE's own may be that of another pipeline.
    """

    encoder_graph = "vae_encoder"

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
        self.latent_scale = read_factor(vae, "scaling_factor")
        self.latent_shift = read_factor(vae, "shift_factor") if vae.get("shift_factor") else np.float32(0)
        if not self.latent_scale:
            raise ValueError("scaling_factor is 0")
        self.decoder_stages: DecoderStages | None = plan_decoder_stages(vae) if num_blocks == NUM_BLOCKS else None
