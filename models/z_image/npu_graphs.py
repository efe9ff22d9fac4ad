"""Z-Image's components as functions of tensors for neural processors (NPUs) that compute in float16 or in integers.

They differ from `z_image_graphs`: shapes are fixed, tokens beyond a prompt's are masked, what such processors lack or
compute too coarsely (token ids, the timestep's sines) is the host's, `z_image_npu_host`, and rotary embedding turns
halves of a head instead of neighbouring channels. For the last, rows of the weights that `z_image` names in `halves`
must stand in that order. A component is taken over: what is changed in it stays changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MASKED = -30.0  # e^-30 is nothing, and leaves 8-bit scores a fine step where -1e4 does not
# Heads times tokens that Rockchip's NPUs turn over: with toolkit 2.5.0 the RK3588 does 5,440 and not 8,160.
MAX_TRANSPOSED_ROWS = 6000
Angles = tuple[Tensor, Tensor]


class TextEncoder(nn.Module):
    """Reads a prompt's embeddings: some of the layers, one after another; the last one is never read."""

    def __init__(self, component: Any, blocks: range) -> None:
        super().__init__()
        self.model = component.base_model
        self._blocks = blocks

    def forward(self, states: Tensor) -> Tensor:
        """embeddings, or states of the layers before, (1, T, D) -> states (1, T, D)."""
        tokens = states.shape[1]
        cos, sin = self.model.rotary_emb(states, torch.arange(tokens)[None])
        angles = cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]
        mask = torch.full((tokens, tokens), MASKED).triu(1)
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
        """Inputs for T tokens."""
        return (torch.zeros(1, sizes["T"], self.model.config.hidden_size),)


class Caption(nn.Module):
    """Refines a prompt for the transformer; runs once a picture."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)

    def forward(self, hidden: Tensor, pad: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """hidden states (1, L, D), pad (1, L, 1) 1 at pads, angles (L, head size / 2), mask (1, 1, 1, L) -> caption
        (1, L, dim)."""
        caption = _fill_pads(self.model.cap_embedder(hidden), pad, self.model.cap_pad_token)
        for block in self.model.context_refiner:
            caption = block(caption, mask, (cos, sin))
        return caption

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for L tokens."""
        length = sizes["L"]
        hidden = torch.zeros(1, length, self.model.config.cap_feat_dim)
        return hidden, torch.zeros(1, length, 1), *_example_angles(self.model, length), torch.zeros(1, 1, 1, length)


class Image(nn.Module):
    """Refines an image's patches for the transformer; runs once a step."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)
        self._key = _patch_key(component)

    def forward(self, patches: Tensor, pad: Tensor, time: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """The image's tokens as the transformer reads them.

        Args:
            patches: (1, N, patch · patch · channels). pad: (1, N, 1), 1 at pads. time: (1, 256), the timestep's sines.
            cos, sin: (N, head size / 2). mask: (1, 1, 1, N).

        Returns:
            states (1, N, dim).
        """
        modulation = self.model.t_embedder.mlp(time)
        states = _fill_pads(self.model.all_x_embedder[self._key](patches), pad, self.model.x_pad_token)
        for block in self.model.noise_refiner:
            states = block(states, mask, (cos, sin), modulation)
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for N patches."""
        image = sizes["N"]
        patches = torch.zeros(1, image, self.model.all_x_embedder[self._key].in_features)
        return patches, torch.zeros(1, image, 1), *_example_step_inputs(self.model, image)


class Transformer(nn.Module):
    """One step of denoising, or some blocks of it: all but the last give what the blocks after them take."""

    def __init__(self, component: Any, blocks: range) -> None:
        super().__init__()
        self.model = _use_split_half_rope(component)
        self._blocks, self._last = blocks, blocks.stop == len(component.layers)
        self._key = _patch_key(component)

    def forward(self, states: Tensor, time: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """One step, or some blocks of it.

        Args:
            states: (1, N + L, dim), of the image and then of the prompt. time: (1, 256), the timestep's sines.
            cos, sin: (N + L, head size / 2). mask: (1, 1, 1, N + L).

        Returns:
            The velocity (1, N + L, patch · patch · channels), that of the prompt meaningless, or states.
        """
        modulation = self.model.t_embedder.mlp(time)
        for number in self._blocks:
            states = self.model.layers[number](states, mask, (cos, sin), modulation)
        if self._last:
            states = self.model.all_final_layer[self._key](states, c=modulation)
        return states

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs for N patches and L tokens."""
        tokens = sizes["N"] + sizes["L"]
        return torch.zeros(1, tokens, self.model.config.dim), *_example_step_inputs(self.model, tokens)


class SplitHalfRopeProcessor:
    """An attention processor that turns the halves of a head, with scores that are added to where they are masked."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  the names and the order are diffusers'
        attention_mask: Tensor | None = None,
        freqs_cis: Angles | None = None,
    ) -> Tensor:
        """hidden_states (1, tokens, dim); freqs_cis: cos and sin, (tokens, head size / 2) each."""
        assert attention_mask is not None
        assert freqs_cis is not None
        rows = tuple(linear(hidden_states) for linear in (attn.to_q, attn.to_k, attn.to_v))
        attn.head_dim = rows[0].shape[-1] // attn.heads
        found: Tensor = attn.to_out[0](_attend(rows, attn, (attn.norm_q, attn.norm_k), freqs_cis, attention_mask))
        return found


def _attend(
    rows: tuple[Tensor, ...], attention: Any, norms: tuple[nn.Module, nn.Module], angles: Angles, mask: Tensor
) -> Tensor:
    """Values (1, tokens, heads · size) that queries find, of queries, keys and values as rows.

    Heads are taken some at a time: of all of them together, long rows of tokens are turned over by the CPU.
    """
    heads, shared = (rows[place].shape[-1] // attention.head_dim for place in (0, 1))
    fitting = (
        n for n in range(1, shared + 1) if shared % n == 0 and heads // n * rows[0].shape[1] <= MAX_TRANSPOSED_ROWS
    )
    count = next(fitting, shared)
    if count == 1:
        return _attend_heads(rows, attention, norms, angles, mask)
    pieces = zip(*(each.chunk(count, dim=-1) for each in rows), strict=True)
    return torch.cat([_attend_heads(piece, attention, norms, angles, mask) for piece in pieces], dim=-1)


def _attend_heads(
    rows: tuple[Tensor, ...], attention: Any, norms: tuple[nn.Module, nn.Module], angles: Angles, mask: Tensor
) -> Tensor:
    """The same of some of the heads."""
    query, key, value = (each.unflatten(-1, (-1, attention.head_dim)) for each in rows)
    query, key = (
        _rotate_halves(norm(each).transpose(1, 2), angles) for norm, each in zip(norms, (query, key), strict=True)
    )
    value = value.transpose(1, 2)
    key, value = (_repeat_heads(query.shape[1], heads) for heads in (key, value))
    scores = (query * attention.head_dim**-0.5) @ key.transpose(2, 3) + mask
    found: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return found


def _repeat_heads(count: int, shared: Tensor) -> Tensor:
    """Heads (1, heads, tokens, size) for so many queries: each is there for some queries that stand together.

    They are put one after another, as repeating them would be the CPU's work on Rockchip's NPUs.
    """
    heads = shared.split(1, dim=1)
    return shared if len(heads) == count else torch.cat([heads[n * len(heads) // count] for n in range(count)], dim=1)


def _rotate_halves(x: Tensor, angles: Angles) -> Tensor:
    """The halves of x (1, heads, tokens, head size), turned against each other by their token's angle."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _use_split_half_rope(component: Any) -> Any:
    for block in (*component.noise_refiner, *component.context_refiner, *component.layers):
        block.attention.set_processor(SplitHalfRopeProcessor())
    return component


def _fill_pads(tokens: Tensor, pad: Tensor, token: Tensor) -> Tensor:
    """Tokens (1, n, dim) with `token` (1, dim) where pad (1, n, 1) is 1."""
    return tokens * (1 - pad) + token * pad


def _example_angles(component: Any, length: int) -> Angles:
    shape = length, sum(component.axes_dims) // 2
    return torch.zeros(shape), torch.zeros(shape)


def _example_step_inputs(component: Any, tokens: int) -> tuple[Tensor, ...]:
    """Inputs that all graphs of a step read: time, angles and mask."""
    time = torch.zeros(1, component.t_embedder.mlp[0].in_features)
    return time, *_example_angles(component, tokens), torch.zeros(1, 1, 1, tokens)


def _patch_key(component: Any) -> str:
    return f"{component.all_patch_size[0]}-{component.all_f_patch_size[0]}"
