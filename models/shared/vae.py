"""AutoencoderKL's decoder and encoder as functions of tensors.

Inputs and outputs are float32, whatever the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # as diffusers clamps it


class VaeDecoder(nn.Module):
    """Decodes latents that are already scaled back."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (1, channels, h, w) to an image (1, 3, 8h, 8w) in [-1, 1]."""
        image: Tensor = self.model.decode(latents.to(self.model.dtype), return_dict=False)[0]
        return image.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes latents of h by w."""
        return (torch.zeros(1, self.model.config.latent_channels, sizes["h"], sizes["w"]),)


class VaeEncoder(nn.Module):
    """Encodes an image to the distribution of its latents, before they are scaled."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, image: Tensor) -> Tensor:
        """Maps an image (1, 3, 8h, 8w) in [-1, 1] to means and standard deviations (1, 2 * channels, h, w)."""
        mean, log_variance = self.compute_moments(image.to(self.model.dtype)).float().chunk(2, dim=1)
        return torch.cat([mean, (log_variance.clamp(*LOG_VARIANCE_RANGE) / 2).exp()], dim=1)

    def compute_moments(self, image: Tensor) -> Tensor:
        """Maps an image (1, 3, 8h, 8w) to means and logarithms of variances (1, 2 * channels, h, w)."""
        moments: Tensor = self.model.encoder(image)
        return moments if self.model.quant_conv is None else self.model.quant_conv(moments)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes an image of H by W."""
        return (torch.zeros(1, 3, sizes["H"], sizes["W"]),)
