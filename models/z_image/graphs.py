"""Z-Image's components as functions of tensors: what the exported graphs compute.

Everything whose shape follows from the size of the image or from the prompt (patches, padding, positions) is prepared
by the host. Inputs and outputs are float32, whatever the dtype of the weights. The modules modify the component: they
replace its attention processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shared.rotary import apply_rotary_embedding


class ZImageTextEncoder(nn.Module):
    """Returns the hidden states of the last but one layer of a causal text encoder."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component.base_model

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (1, T) int64 to hidden states (1, T, D)."""
        states: Tensor = self.model.embed_tokens(ids)
        angles = self.model.rotary_emb(states, torch.arange(ids.shape[1])[None])
        for layer in self.model.layers[:-1]:
            states = layer(states, attention_mask=None, position_embeddings=angles)
        return states.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes inputs for T tokens."""
        return (torch.zeros(1, sizes["T"], dtype=torch.int64),)


class ZImageTextRefiner(nn.Module):
    """Refines the prompt's hidden states for the transformer; runs once an image."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_real_rope(component)

    def forward(self, hidden: Tensor, pad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Refines the prompt.

        Args:
            hidden: Hidden states of the text encoder, (1, L, D).
            pad: 1 at pads, 0 elsewhere, (1, L, 1).
            cos: Cosines of the positions, (L, head size / 2).
            sin: Sines of the positions, (L, head size / 2).

        Returns:
            Refined states, (1, L, dim).
        """
        embedded = self.model.cap_embedder(hidden.to(self.model.dtype))
        states = _fill_pads(embedded, pad, self.model.cap_pad_token)
        for block in self.model.context_refiner:
            states = block(states, None, (cos, sin))
        return states.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for L tokens."""
        length = sizes["L"]
        hidden = torch.zeros(1, length, self.model.config.cap_feat_dim)
        return hidden, torch.zeros(1, length, 1), *_example_angles(self.model, length)


class ZImageTransformer(nn.Module):
    """One denoising step: predicts the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_real_rope(component)
        self._key = f"{component.all_patch_size[0]}-{component.all_f_patch_size[0]}"

    def forward(
        self,
        patches: Tensor,
        pad: Tensor,
        timestep: Tensor,
        caption: Tensor,
        image_cos: Tensor,
        image_sin: Tensor,
        caption_cos: Tensor,
        caption_sin: Tensor,
    ) -> Tensor:
        """Computes the transformer's output for the image's tokens, as diffusers does.

        Args:
            patches: Patches of the latents, padded, (1, N, patch * patch * channels).
            pad: 1 at pads, 0 elsewhere, (1, N, 1).
            timestep: From 0 (noise) to 1, (1,).
            caption: Output of `ZImageTextRefiner`, (1, L, dim).
            image_cos: Cosines of the image's positions, (N, head size / 2).
            image_sin: Sines of the image's positions, (N, head size / 2).
            caption_cos: Cosines of the prompt's positions, (L, head size / 2).
            caption_sin: Sines of the prompt's positions, (L, head size / 2).

        Returns:
            Velocity, (1, N, patch * patch * channels).
        """
        dtype = self.model.dtype
        modulation = self.model.t_embedder(timestep * self.model.t_scale).to(dtype)
        image = _fill_pads(self.model.all_x_embedder[self._key](patches.to(dtype)), pad, self.model.x_pad_token)
        for block in self.model.noise_refiner:
            image = block(image, None, (image_cos, image_sin), modulation)
        states = torch.cat([image, caption.to(dtype)], dim=1)
        angles = torch.cat([image_cos, caption_cos]), torch.cat([image_sin, caption_sin])
        for block in self.model.layers:
            states = block(states, None, angles, modulation)
        velocity: Tensor = self.model.all_final_layer[self._key](states[:, : patches.shape[1]], c=modulation)
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and L tokens."""
        image, text = sizes["N"], sizes["L"]
        patches = torch.zeros(1, image, self.model.all_x_embedder[self._key].in_features)
        caption = torch.zeros(1, text, self.model.config.dim)
        angles = (*_example_angles(self.model, image), *_example_angles(self.model, text))
        return patches, torch.zeros(1, image, 1), torch.zeros(1), caption, *angles


class ZImageRealRopeProcessor:
    """An attention processor that applies rotary embedding by ONNX's operator."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  diffusers passes these by name and position
        attention_mask: Tensor | None = None,  # noqa: ARG002
        freqs_cis: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Computes attention over hidden_states (1, tokens, dim).

        Args:
            attn: The attention module.
            hidden_states: Tokens, (1, tokens, dim).
            encoder_hidden_states: Not used.
            attention_mask: Not used.
            freqs_cis: Cos and sin, (tokens, head size / 2) each.
        """
        assert freqs_cis is not None
        query, key, value = (linear(hidden_states) for linear in (attn.to_q, attn.to_k, attn.to_v))
        query, key = (
            apply_rotary_embedding(norm(rows.unflatten(-1, (attn.heads, -1))), *freqs_cis).transpose(1, 2)
            for norm, rows in ((attn.norm_q, query), (attn.norm_k, key))
        )
        rows = F.scaled_dot_product_attention(query, key, value.unflatten(-1, (attn.heads, -1)).transpose(1, 2))
        output: Tensor = attn.to_out[0](rows.transpose(1, 2).flatten(2))
        return output


def _use_real_rope(component: Any) -> Any:
    for block in (*component.noise_refiner, *component.context_refiner, *component.layers):
        block.attention.set_processor(ZImageRealRopeProcessor())
    return component


def _fill_pads(tokens: Tensor, pad: Tensor, pad_token: Tensor) -> Tensor:
    """Replaces tokens (1, n, dim) by `pad_token` (1, dim) where pad (1, n, 1) is 1.

    Computes sums and products, because some devices have no selection.
    """
    pad = pad.to(tokens.dtype)
    return tokens * (1 - pad) + pad_token * pad


def _example_angles(component: Any, length: int) -> tuple[Tensor, Tensor]:
    shape = length, sum(component.axes_dims) // 2
    return torch.zeros(shape), torch.zeros(shape)
