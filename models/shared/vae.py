"""AutoencoderKL's two halves as functions of tensors; inputs and outputs are float32 whatever the weights are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """Makes a picture of latents that are scaled back already."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, latents: Tensor) -> Tensor:
        """latents (1, channels, h, w) -> image (1, 3, 8h, 8w), from -1 to 1."""
        image: Tensor = self.model.decode(latents.to(self.model.dtype), return_dict=False)[0]
        return image.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Latents of h by w."""
        return (torch.zeros(1, self.model.config.latent_channels, sizes["h"], sizes["w"]),)


class Encoder(nn.Module):
    """Makes the likeliest latents of a picture, before they are scaled."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, image: Tensor) -> Tensor:
        """image (1, 3, 8h, 8w), from -1 to 1 -> latents (1, channels, h, w)."""
        moments: Tensor = self.model.encoder(image.to(self.model.dtype))
        if self.model.quant_conv is not None:
            moments = self.model.quant_conv(moments)
        return moments[:, : self.model.config.latent_channels].float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """A picture of H by W."""
        return (torch.zeros(1, self.model.config.in_channels, sizes["H"], sizes["W"]),)
