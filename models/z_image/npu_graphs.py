"""Z-Image's components as functions of tensors for neural processing units that compute in float16 or in integers.

They differ from `graphs` as follows. Shapes are fixed, and tokens beyond the prompt are masked. What such processors
lack or compute too coarsely (token embeddings, sinusoids of the timestep) is left to the host. Rotary embedding rotates
the halves of a head instead of neighbouring channels; therefore the rows of the weights in
`NpuSpec.split_half_modules` are reordered. The modules modify the component: they replace its attention processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MASK_VALUE = -30.0  # e^-30 is practically 0, and unlike -1e4 it leaves 8-bit scores a fine step
# Heads times tokens that Rockchip's NPUs can transpose: with toolkit 2.5.0, 5,440 work on the RK3588 and 8,160 do not.
MAX_TRANSPOSED_ROWS = 6000
Angles = tuple[Tensor, Tensor]


class NpuTextEncoder(nn.Module):
    """Some consecutive layers of the text encoder; the last layer is unused."""

    def __init__(self, component: Any, blocks: range) -> None:
        super().__init__()
        self.model = component.base_model
        self._blocks = blocks

    def forward(self, states: Tensor) -> Tensor:
        """Maps token embeddings, or hidden states of the layers before, (1, T, D), to hidden states (1, T, D)."""
        tokens = states.shape[1]
        cos, sin = self.model.rotary_emb(states, torch.arange(tokens)[None])
        angles = cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]
        mask = torch.full((tokens, tokens), MASK_VALUE).triu(1)
        for number in self._blocks:
            layer = self.model.layers[number]
            attention = layer.self_attn
            normed = layer.input_layernorm(states)
            names = ("q_proj", "k_proj", "v_proj")
            rows = tuple(getattr(attention, name)(normed) for name in names)
            norms = attention.q_norm, attention.k_norm
            states = states + attention.o_proj(_attend(rows, attention, norms, angles, mask))
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes inputs for T tokens."""
        return (torch.zeros(1, sizes["T"], self.model.config.hidden_size),)


class NpuTextRefiner(nn.Module):
    """Refines the prompt's hidden states for the transformer; runs once an image."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)

    def forward(self, hidden: Tensor, pad: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Refines the prompt.

        Args:
            hidden: Hidden states of the text encoder, (1, L, D).
            pad: 1 at pads, 0 elsewhere, (1, L, 1).
            cos: Cosines of the positions, (L, head size / 2).
            sin: Sines of the positions, (L, head size / 2).
            mask: Added to the attention scores, (1, 1, 1, L).

        Returns:
            Refined states, (1, L, dim).
        """
        states = _fill_pads(self.model.cap_embedder(hidden), pad, self.model.cap_pad_token)
        for block in self.model.context_refiner:
            states = block(states, mask, (cos, sin))
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for L tokens."""
        length = sizes["L"]
        hidden = torch.zeros(1, length, self.model.config.cap_feat_dim)
        return hidden, torch.zeros(1, length, 1), *_example_angles(self.model, length), torch.zeros(1, 1, 1, length)


class NpuImageRefiner(nn.Module):
    """Refines the image's patches for the transformer; runs once a step."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)
        self._key = _patch_key(component)

    def forward(self, patches: Tensor, pad: Tensor, time: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Refines the patches.

        Args:
            patches: Patches of the latents, padded, (1, N, patch * patch * channels).
            pad: 1 at pads, 0 elsewhere, (1, N, 1).
            time: Sinusoids of the timestep, (1, 256).
            cos: Cosines of the positions, (N, head size / 2).
            sin: Sines of the positions, (N, head size / 2).
            mask: Added to the attention scores, (1, 1, 1, N).

        Returns:
            Refined states, (1, N, dim).
        """
        modulation = self.model.t_embedder.mlp(time)
        states = _fill_pads(self.model.all_x_embedder[self._key](patches), pad, self.model.x_pad_token)
        for block in self.model.noise_refiner:
            states = block(states, mask, (cos, sin), modulation)
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches."""
        image = sizes["N"]
        patches = torch.zeros(1, image, self.model.all_x_embedder[self._key].in_features)
        return patches, torch.zeros(1, image, 1), *_example_step_inputs(self.model, image)


class NpuTransformer(nn.Module):
    """One denoising step, or some consecutive blocks of it; all but the last part return states for the next one."""

    def __init__(self, component: Any, blocks: range) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)
        self._blocks, self._last = blocks, blocks.stop == len(component.layers)
        self._key = _patch_key(component)

    def forward(self, states: Tensor, time: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Runs the blocks.

        Args:
            states: States of the image, then of the prompt, (1, N + L, dim).
            time: Sinusoids of the timestep, (1, 256).
            cos: Cosines of the positions, (N + L, head size / 2).
            sin: Sines of the positions, (N + L, head size / 2).
            mask: Added to the attention scores, (1, 1, 1, N + L).

        Returns:
            The velocity (1, N + L, patch * patch * channels), whose rows for the prompt have no meaning; or states, if
            more blocks follow.
        """
        modulation = self.model.t_embedder.mlp(time)
        for number in self._blocks:
            states = self.model.layers[number](states, mask, (cos, sin), modulation)
        if self._last:
            states = self.model.all_final_layer[self._key](states, c=modulation)
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and L tokens."""
        tokens = sizes["N"] + sizes["L"]
        return torch.zeros(1, tokens, self.model.config.dim), *_example_step_inputs(self.model, tokens)


class SplitHalfRopeProcessor:
    """An attention processor that rotates the halves of a head and adds a mask to the scores."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  diffusers passes these by name and position
        attention_mask: Tensor | None = None,
        freqs_cis: Angles | None = None,
    ) -> Tensor:
        """Computes attention.

        Args:
            attn: The attention module.
            hidden_states: Tokens, (1, tokens, dim).
            encoder_hidden_states: Not used.
            attention_mask: Added to the scores, (1, 1, 1, tokens).
            freqs_cis: Cos and sin, (tokens, head size / 2) each.
        """
        assert attention_mask is not None
        assert freqs_cis is not None
        rows = tuple(linear(hidden_states) for linear in (attn.to_q, attn.to_k, attn.to_v))
        attn.head_dim = rows[0].shape[-1] // attn.heads
        output: Tensor = attn.to_out[0](_attend(rows, attn, (attn.norm_q, attn.norm_k), freqs_cis, attention_mask))
        return output


def _attend(
    rows: tuple[Tensor, ...], attention: Any, norms: tuple[nn.Module, nn.Module], angles: Angles, mask: Tensor
) -> Tensor:
    """Computes attention for some heads at a time.

    With all heads at once, Rockchip's toolkit would transpose long rows of tokens on the CPU.

    Args:
        rows: Queries, keys and values, (1, tokens, heads * head size) each.
        attention: The attention module, for its head size.
        norms: Norms of queries and of keys.
        angles: Cos and sin, (tokens, head size / 2) each.
        mask: Added to the scores.

    Returns:
        Outputs of all heads, (1, tokens, heads * head size).
    """
    heads, kv_heads = (rows[index].shape[-1] // attention.head_dim for index in (0, 1))
    tokens = rows[0].shape[1]
    counts = (n for n in range(1, kv_heads + 1) if kv_heads % n == 0 and heads // n * tokens <= MAX_TRANSPOSED_ROWS)
    count = next(counts, kv_heads)
    if count == 1:
        return _attend_heads(rows, attention, norms, angles, mask)
    chunks = zip(*(tensor.chunk(count, dim=-1) for tensor in rows), strict=True)
    return torch.cat([_attend_heads(chunk, attention, norms, angles, mask) for chunk in chunks], dim=-1)


def _attend_heads(
    rows: tuple[Tensor, ...], attention: Any, norms: tuple[nn.Module, nn.Module], angles: Angles, mask: Tensor
) -> Tensor:
    """Computes attention for the given heads at once."""
    query, key, value = (tensor.unflatten(-1, (-1, attention.head_dim)) for tensor in rows)
    query, key = (
        _rotate_halves(norm(tensor).transpose(1, 2), angles) for norm, tensor in zip(norms, (query, key), strict=True)
    )
    value = value.transpose(1, 2)
    key, value = (_repeat_heads(query.shape[1], heads) for heads in (key, value))
    scores = (query * attention.head_dim**-0.5) @ key.transpose(2, 3) + mask
    output: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return output


def _repeat_heads(count: int, kv_heads: Tensor) -> Tensor:
    """Repeats key-value heads (1, heads, tokens, size) for `count` query heads; consecutive queries share a head.

    Heads are concatenated, because Rockchip's NPUs leave a repetition to the CPU.
    """
    heads = kv_heads.split(1, dim=1)
    if len(heads) == count:
        return kv_heads
    return torch.cat([heads[n * len(heads) // count] for n in range(count)], dim=1)


def _rotate_halves(x: Tensor, angles: Angles) -> Tensor:
    """Rotates the halves of x (1, heads, tokens, head size) against each other by the angles of their tokens."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _use_split_half_rope(component: Any) -> Any:
    for block in (*component.noise_refiner, *component.context_refiner, *component.layers):
        block.attention.set_processor(SplitHalfRopeProcessor())
    return component


def _fill_pads(tokens: Tensor, pad: Tensor, pad_token: Tensor) -> Tensor:
    """Replaces tokens (1, n, dim) by `pad_token` (1, dim) where pad (1, n, 1) is 1."""
    return tokens * (1 - pad) + pad_token * pad


def _example_angles(component: Any, length: int) -> Angles:
    shape = length, sum(component.axes_dims) // 2
    return torch.zeros(shape), torch.zeros(shape)


def _example_step_inputs(component: Any, tokens: int) -> tuple[Tensor, ...]:
    """Makes the inputs that all graphs of a step take: timestep, angles and mask."""
    time = torch.zeros(1, component.t_embedder.mlp[0].in_features)
    return time, *_example_angles(component, tokens), torch.zeros(1, 1, 1, tokens)


def _patch_key(component: Any) -> str:
    return f"{component.all_patch_size[0]}-{component.all_f_patch_size[0]}"
