"""Flux's transformer as a function of tensors; inputs and outputs are float32 whatever the weights are.

Patches and the angles of all positions are made outside. The module here takes a component over: it changes the
attention's processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shared.rotary import apply_rotary_embedding


class Transformer(nn.Module):
    """One step of denoising: the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        for block in (*component.transformer_blocks, *component.single_transformer_blocks):
            block.attn.set_processor(FluxRealRopeProcessor())

    def forward(
        self,
        patches: Tensor,
        timestep: Tensor,
        hidden: Tensor,
        pooled: Tensor,
        image_cos: Tensor,
        image_sin: Tensor,
        text_cos: Tensor,
        text_sin: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The transformer's output, as its own class gives it.

        Args:
            patches: (1, N, channels). timestep: (1,), from 1 (noise) to 0.
            hidden: (1, T, width), of T5. pooled: (1, width), of CLIP.
            image_cos, image_sin: (N, head size / 2). text_cos, text_sin: (T, head size / 2).
            guidance: (1,), where the model was distilled to know of it.

        Returns:
            velocity (1, N, channels).
        """
        dtype, model = self.model.dtype, self.model
        conditions = [timestep * 1000] + ([] if guidance is None else [guidance * 1000])
        modulation = model.time_text_embed(*(one.to(dtype) for one in conditions), pooled.to(dtype))
        angles = torch.cat([text_cos, image_cos]), torch.cat([text_sin, image_sin])
        image, text = model.x_embedder(patches.to(dtype)), model.context_embedder(hidden.to(dtype))
        for block in (*model.transformer_blocks, *model.single_transformer_blocks):
            text, image = block(image, text, modulation, angles)
        velocity: Tensor = model.proj_out(model.norm_out(image, modulation))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for N patches and T tokens."""
        image, text, config = sizes["N"], sizes["T"], self.model.config
        half = sum(config.axes_dims_rope) // 2
        states = torch.zeros(1, text, config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim)
        angles = (torch.zeros(length, half) for length in (image, image, text, text))
        guidance = [torch.zeros(1)] if config.guidance_embeds else []
        return torch.zeros(1, image, config.in_channels), torch.zeros(1), *states, *angles, *guidance


class FluxRealRopeProcessor:
    """An attention processor that turns queries and keys by ONNX's operator; text stands before image."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002  the names and the order are diffusers'
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """hidden_states (1, tokens, dim); image_rotary_emb: cos and sin, (all tokens, head size / 2) each.

        Returns:
            the image's rows, and the text's where these came on their own.
        """
        assert image_rotary_emb is not None
        query, key, value = _project_qkv(attn, hidden_states, encoder_hidden_states)
        query, key = (apply_rotary_embedding(rows, *image_rotary_emb) for rows in (query, key))
        query, key, value = (rows.transpose(1, 2) for rows in (query, key, value))
        rows = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return rows
        text = encoder_hidden_states.shape[1]
        return attn.to_out[0](rows[:, text:]), attn.to_add_out(rows[:, :text])


def _project_qkv(attn: Any, image: Tensor, text: Tensor | None) -> list[Tensor]:
    """Queries, keys and values (1, tokens, heads, head size); the first two normalized."""
    linears, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k, nn.Identity())
    found = [_project_heads(linear, norm, image, attn) for linear, norm in zip(linears, norms, strict=True)]
    if text is None:
        return found
    linears = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
    norms = attn.norm_added_q, attn.norm_added_k, nn.Identity()
    added = [_project_heads(linear, norm, text, attn) for linear, norm in zip(linears, norms, strict=True)]
    return [torch.cat(pair, dim=1) for pair in zip(added, found, strict=True)]


def _project_heads(linear: nn.Module, norm: nn.Module, rows: Tensor, attn: Any) -> Tensor:
    found: Tensor = norm(linear(rows).unflatten(-1, (-1, attn.head_dim)))
    return found
