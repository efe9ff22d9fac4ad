"""A small AutoencoderKL with random weights, and latents on which tiles of its picture would differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgepress.models.base.host import RunGraph


def vae(**changed: Any) -> Any:
    """Random weights, with norms that do something; the middle has attention, as the published decoder's has."""
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
        made: Any = AutoencoderKL(**config | changed).eval().requires_grad_(False)
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return made


def latents(component: Any, height: int, width: int) -> Any:
    """Whose left is another than their right, so that what tiles have of their own differs."""
    noise = np.random.default_rng(0).standard_normal((1, component.config.latent_channels, height, width))
    return (noise + np.linspace(-2, 2, width)).astype(np.float32)


def error_of(run: RunGraph, component: Any, height: int, width: int) -> float:
    """The largest difference of the picture that `run` decodes from the one decoded whole, over its largest value."""
    whole = latents(component, height, width)
    expected = component.decode(torch.from_numpy(whole)).sample.numpy()
    found = run("vae_decoder", {"latents": whole})
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())
