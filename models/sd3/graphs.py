"""Stable Diffusion 3's transformer as a function of tensors; inputs and outputs are float32 whatever the weights are.

Patches, and where they stand, are made outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Transformer(nn.Module):
    """One step of denoising: the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        table = component.pos_embed.pos_embed  # stored with the weights, and as large as one
        del component.pos_embed.pos_embed
        component.pos_embed.pos_embed = nn.Parameter(table, requires_grad=False)

    def forward(self, patches: Tensor, positions: Tensor, timestep: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's output, in patches.

        Args:
            patches: (1, N, channels · patch · patch), columns of a patch running fastest, then its rows.
            positions: (N,) int64, row · side + column in a square of `pos_embed_max_size` patches a side; the picture
                stands in its middle, rounded down.
            timestep: (1,), from 1000 (noise) to 0.
            hidden: (1, L, width), of CLIP's two encoders side by side and T5 after them. pooled: (1, width), of CLIP's.

        Returns:
            velocity (1, N, patch · patch · channels), channels running fastest.
        """
        model, dtype = self.model, self.model.dtype
        embedder = model.pos_embed
        image = F.linear(patches.to(dtype), embedder.proj.weight.flatten(1), embedder.proj.bias)
        image = (image + embedder.pos_embed.index_select(1, positions)).to(dtype)
        modulation = model.time_text_embed(timestep, pooled.to(dtype))
        text = model.context_embedder(hidden.to(dtype))
        for block in model.transformer_blocks:
            text, image = block(image, text, modulation)
        velocity: Tensor = model.proj_out(model.norm_out(image, modulation))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for N patches and L tokens."""
        config, image = self.model.config, sizes["N"]
        patches = torch.zeros(1, image, config.in_channels * config.patch_size**2)
        states = torch.zeros(1, sizes["L"], config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim)
        return patches, torch.zeros(image, dtype=torch.int64), torch.zeros(1), *states
