"""Stable Diffusion XL's UNet as a function of tensors; inputs and outputs are float32, whatever the weights' dtype.

The module modifies the component: it replaces the upsamplers of its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SDXLUNet(nn.Module):
    """One denoising step: predicts the noise in latents."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        for block in component.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(Upsampler(upsampler) for upsampler in block.upsamplers)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        hidden: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Computes the UNet's output, as diffusers does.

        Args:
            latents: Latents, scaled by the scheduler for the timestep, (1, channels, h, w).
            timestep: Below 1000, (1,).
            hidden: Hidden states of both CLIP encoders, concatenated by channels, (1, L, width).
            pooled: Embedding of the second CLIP encoder, (1, width).
            time_ids: Original size, crop offset from the top and left, and target size, in pixels, (1, 6).
            guidance: Embedding of the guidance scale, (1, width), if the model was distilled with one.

        Returns:
            Noise, (1, channels, h, w).
        """
        model, dtype = self.model, self.model.dtype
        states, context = latents.to(dtype), hidden.to(dtype)
        guidance = None if guidance is None else guidance.to(dtype)
        time = model.time_embedding(model.get_time_embed(states, timestep), guidance)
        conditions = {"text_embeds": pooled, "time_ids": time_ids}  # float32 as the embedding of time_ids, then cast
        modulation = time + model.get_aug_embed(time, context, conditions)
        states = model.conv_in(states)
        skips = [states]
        for block in model.down_blocks:
            states, block_skips = block(states, modulation, **_make_context_kwargs(block, context))
            skips += block_skips
        if model.mid_block is not None:
            states = model.mid_block(states, modulation, **_make_context_kwargs(model.mid_block, context))
        for block in model.up_blocks:
            count = len(block.resnets)
            block_skips, skips = skips[-count:], skips[:-count]
            size = skips[-1].shape[-2:] if skips else None
            kwargs = _make_context_kwargs(block, context)
            states = block(states, tuple(block_skips), modulation, upsample_size=size, **kwargs)
        noise: Tensor = model.conv_out(model.conv_act(model.conv_norm_out(states)))
        return noise.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for latents of h by w and L tokens."""
        config = self.model.config
        latents = torch.zeros(1, config.in_channels, sizes["h"], sizes["w"])
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        hidden = torch.zeros(1, sizes["L"], config.cross_attention_dim)
        guidance = [torch.zeros(1, config.time_cond_proj_dim)] if config.time_cond_proj_dim else []
        return latents, torch.zeros(1), hidden, torch.zeros(1, pooled), torch.zeros(1, 6), *guidance


class Upsampler(nn.Module):
    """Upsamples features to a given size, which can be one less than twice their size."""

    def __init__(self, upsampler: Any) -> None:
        super().__init__()
        self.conv = upsampler.conv

    def forward(self, states: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps states (1, channels, rows, columns) to (1, channels, *size)."""
        output: Tensor = self.conv(F.interpolate(states, size=size, mode="nearest"))
        return output


def _make_context_kwargs(block: Any, context: Tensor) -> dict[str, Tensor]:
    """Returns the text states as a keyword argument, if the block has cross-attention."""
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
