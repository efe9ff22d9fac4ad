"""Stable Diffusion XL's UNet as a function of tensors; inputs and outputs are float32 whatever the weights are.

The module here takes a component over: it changes how the UNet's blocks grow their pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unet(nn.Module):
    """One step of denoising: the noise in latents."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        for block in component.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(Upsampler(one) for one in block.upsamplers)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        hidden: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The UNet's output, as its own class gives it.

        Args:
            latents: (1, channels, h, w), scaled for the timestep as the scheduler wants. timestep: (1,), below 1000.
            hidden: (1, L, width), of CLIP's two encoders side by side. pooled: (1, width), of the second.
            time_ids: (1, 6), heights and widths in pixels: original size, what is cropped at top and left, target size.
            guidance: (1, width), the embedding of a guidance scale, where the model was distilled to know of it.

        Returns:
            noise (1, channels, h, w).
        """
        model, dtype = self.model, self.model.dtype
        states, context = latents.to(dtype), hidden.to(dtype)
        told = None if guidance is None else guidance.to(dtype)
        time = model.time_embedding(model.get_time_embed(states, timestep), told)
        said = {"text_embeds": pooled.to(dtype), "time_ids": time_ids}
        modulation = time + model.get_aug_embed(time, context, said)
        states = model.conv_in(states)
        kept = [states]
        for block in model.down_blocks:
            states, more = block(states, modulation, **_make_context_kwargs(block, context))
            kept += more
        if model.mid_block is not None:
            states = model.mid_block(states, modulation, **_make_context_kwargs(model.mid_block, context))
        for block in model.up_blocks:
            read, kept = kept[-len(block.resnets) :], kept[: -len(block.resnets)]
            size = kept[-1].shape[-2:] if kept else None
            states = block(states, tuple(read), modulation, upsample_size=size, **_make_context_kwargs(block, context))
        noise: Tensor = model.conv_out(model.conv_act(model.conv_norm_out(states)))
        return noise.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for latents of h by w and L tokens."""
        config = self.model.config
        latents = torch.zeros(1, config.in_channels, sizes["h"], sizes["w"])
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        hidden = torch.zeros(1, sizes["L"], config.cross_attention_dim)
        guidance = [torch.zeros(1, config.time_cond_proj_dim)] if config.time_cond_proj_dim else []
        return latents, torch.zeros(1), hidden, torch.zeros(1, pooled), torch.zeros(1, 6), *guidance


class Upsampler(nn.Module):
    """Grows a picture to a size, which may be one less than twice as large."""

    def __init__(self, upsampler: Any) -> None:
        super().__init__()
        self.conv = upsampler.conv

    def forward(self, states: Tensor, size: tuple[int, int]) -> Tensor:
        """states (1, channels, rows, columns) -> (1, channels, *size)."""
        grown: Tensor = self.conv(F.interpolate(states, size=size, mode="nearest"))
        return grown


def _make_context_kwargs(block: Any, context: Tensor) -> dict[str, Tensor]:
    """What a block is given of the text, if it reads it."""
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
