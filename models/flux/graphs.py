"""Flux's transformer as a function of tensors; inputs and outputs are float32, whatever the dtype of the weights.

The patches and the rotary tables are inputs. The module modifies the component: it replaces the attention processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shared.rotary import apply_rotary_embedding


class FluxTransformer(nn.Module):
    """One denoising step: predicts the velocity of an image's patches."""

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
        """Computes the transformer's output, as diffusers does.

        Args:
            patches: Patches of the latents, (1, N, channels).
            timestep: From 1 (noise) to 0, (1,).
            hidden: Hidden states of T5, (1, T, width).
            pooled: Embedding of CLIP, (1, width).
            image_cos: Cosines of the image's positions, (N, head size / 2).
            image_sin: Sines of the image's positions, (N, head size / 2).
            text_cos: Cosines of the prompt's positions, (T, head size / 2).
            text_sin: Sines of the prompt's positions, (T, head size / 2).
            guidance: Guidance scale, (1,), if the model was distilled with one.

        Returns:
            Velocity, (1, N, channels).
        """
        dtype, model = self.model.dtype, self.model
        conditions = [timestep * 1000] + ([] if guidance is None else [guidance * 1000])
        modulation = model.time_text_embed(*(condition.to(dtype) for condition in conditions), pooled.to(dtype))
        angles = torch.cat([text_cos, image_cos]), torch.cat([text_sin, image_sin])
        image, text = model.x_embedder(patches.to(dtype)), model.context_embedder(hidden.to(dtype))
        for block in (*model.transformer_blocks, *model.single_transformer_blocks):
            text, image = block(image, text, modulation, angles)
        velocity: Tensor = model.proj_out(model.norm_out(image, modulation))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and T tokens."""
        image, text, config = sizes["N"], sizes["T"], self.model.config
        half = sum(config.axes_dims_rope) // 2
        states = torch.zeros(1, text, config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim)
        angles = (torch.zeros(length, half) for length in (image, image, text, text))
        guidance = [torch.zeros(1)] if config.guidance_embeds else []
        return torch.zeros(1, image, config.in_channels), torch.zeros(1), *states, *angles, *guidance


class FluxRealRopeProcessor:
    """An attention processor that applies rotary embedding by ONNX's operator; text tokens come before image tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002  diffusers passes these by name and position
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Computes attention.

        Args:
            attn: The attention module.
            hidden_states: Image tokens, or in single-stream blocks text and image tokens, (1, tokens, dim).
            encoder_hidden_states: Text tokens, (1, tokens, dim).
            attention_mask: Not used.
            image_rotary_emb: Cos and sin of all tokens, (tokens, head size / 2) each.

        Returns:
            The image tokens, and the text tokens if they were given separately.
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
    """Returns queries, keys and values (1, tokens, heads, head size); queries and keys are normalized."""
    linears, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k, nn.Identity())
    image_qkv = [_project_heads(linear, norm, image, attn) for linear, norm in zip(linears, norms, strict=True)]
    if text is None:
        return image_qkv
    linears = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
    norms = attn.norm_added_q, attn.norm_added_k, nn.Identity()
    text_qkv = [_project_heads(linear, norm, text, attn) for linear, norm in zip(linears, norms, strict=True)]
    return [torch.cat(pair, dim=1) for pair in zip(text_qkv, image_qkv, strict=True)]


def _project_heads(linear: nn.Module, norm: nn.Module, rows: Tensor, attn: Any) -> Tensor:
    heads: Tensor = norm(linear(rows).unflatten(-1, (-1, attn.inner_dim // attn.heads)))
    return heads
