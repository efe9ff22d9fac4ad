"""A small AutoencoderKL with random weights, and latents on which the moments of tiles differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgepress.models.base.host import RunGraph


def make_vae(**changes: Any) -> Any:
    """Makes a VAE with non-trivial norms, and with attention in its middle block as the published one has."""
    from diffusers import AutoencoderKL

    config: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = AutoencoderKL(**config | changes).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def make_latents(component: Any, height: int, width: int) -> Any:
    """Makes latents with a gradient from left to right, so that the moments of tiles differ."""
    noise = np.random.default_rng(0).standard_normal((1, component.config.latent_channels, height, width))
    return (noise + np.linspace(-2, 2, width)).astype(np.float32)


def measure_decoding_error(run: RunGraph, component: Any, height: int, width: int) -> float:
    """Compares the image that `run` decodes with the one decoded as a whole; the error is relative to the maximum."""
    latents = make_latents(component, height, width)
    expected = component.decode(torch.from_numpy(latents)).sample.numpy()
    image = run("vae_decoder", {"latents": latents})
    assert image.shape == expected.shape
    assert image.dtype == np.float32
    return float(np.abs(image - expected).max() / np.abs(expected).max())
