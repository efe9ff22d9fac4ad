"""Stable Diffusion 3's transformer as a function of tensors; patches and their positions are inputs.

Inputs and outputs are float32, whatever the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SD3Transformer(nn.Module):
    """One denoising step: predicts the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        # A buffer would become a constant inside the graph. As a parameter the table is stored with the weights.
        table = component.pos_embed.pos_embed
        del component.pos_embed.pos_embed
        component.pos_embed.pos_embed = nn.Parameter(table, requires_grad=False)

    def forward(self, patches: Tensor, positions: Tensor, timestep: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        """Computes the transformer's output, in patches.

        Args:
            patches: Patches of the latents, (1, N, channels * patch * patch); within a patch columns vary fastest,
                then rows.
            positions: Indices row * side + column into a square of `pos_embed_max_size` patches a side, int64, (N,).
                The image lies in the middle of the square, rounded down.
            timestep: From 1000 (noise) to 0, (1,).
            hidden: Hidden states of the CLIP encoders, concatenated by channels, followed by those of T5,
                (1, L, width).
            pooled: Embeddings of the CLIP encoders, (1, width).

        Returns:
            Velocity, (1, N, patch * patch * channels); within a patch channels vary fastest.
        """
        model, embedder = self.model, self.model.pos_embed
        dtype = embedder.proj.weight.dtype  # the model's own is that of the table, which may be another
        image = F.linear(patches.to(dtype), embedder.proj.weight.flatten(1), embedder.proj.bias)
        image = (image + embedder.pos_embed.index_select(1, positions)).to(dtype)
        modulation = model.time_text_embed(timestep, pooled.to(dtype))
        text = model.context_embedder(hidden.to(dtype))
        for block in model.transformer_blocks:
            text, image = block(image, text, modulation)
        velocity: Tensor = model.proj_out(model.norm_out(image, modulation))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and L tokens."""
        config, image = self.model.config, sizes["N"]
        patches = torch.zeros(1, image, config.in_channels * config.patch_size**2)
        states = torch.zeros(1, sizes["L"], config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim)
        return patches, torch.zeros(image, dtype=torch.int64), torch.zeros(1), *states
