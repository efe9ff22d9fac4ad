"""CLIP's text encoder and T5's encoder as functions of tensors, with the outputs that the pipelines use.

Outputs are float32, whatever the dtype of the weights. There is no attention mask: these pipelines attend to padding as
to any other token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

LEGACY_EOS = 2  # eos_token_id in the configs of the first CLIP models, whose end token is the largest id instead


class _ClipTextEncoder(nn.Module):
    """CLIP's text encoder, for prompts that are padded to its one length."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def example(self, _: Mapping[str, int]) -> tuple[Tensor]:
        """Makes token ids."""
        return (torch.zeros(1, self.model.config.max_position_embeddings, dtype=torch.int64),)

    @property
    def _text_model(self) -> Any:
        """The encoder itself; a model with a projection wraps it."""
        return getattr(self.model, "text_model", self.model)

    def _run_first_layers(self, ids: Tensor, count: int) -> Tensor:
        """Returns the hidden states (1, tokens, dim) after the first layers."""
        states: Tensor = self._text_model.embeddings(ids)
        return self._run_layers(states, 0, count)

    def _run_layers(self, states: Tensor, first: int, last: int) -> Tensor:
        for layer in self._text_model.encoder.layers[first:last]:
            states = layer(states, attention_mask=None, is_causal=True)
        return states

    def _pool(self, ids: Tensor, states: Tensor) -> Tensor:
        """Returns the normalized row (1, dim) of the first end token."""
        eos = self.model.config.eos_token_id
        numbers = ids.int() if eos == LEGACY_EOS else (ids == eos).int()
        pooled: Tensor = self._text_model.final_layer_norm(states).index_select(1, numbers.argmax(dim=-1))[:, 0]
        return pooled


class ClipHidden(_ClipTextEncoder):
    """Returns the hidden states of the last but one layer, not normalized."""

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (1, tokens) int64 to hidden states (1, tokens, dim)."""
        return self._run_first_layers(ids, len(self._text_model.encoder.layers) - 1).float()


class ClipPooled(_ClipTextEncoder):
    """Returns one embedding of the whole prompt."""

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (1, tokens) int64 to an embedding (1, dim)."""
        return self._pool(ids, self._run_first_layers(ids, len(self._text_model.encoder.layers))).float()


class ClipProjected(_ClipTextEncoder):
    """Returns the hidden states of the last but one layer, and an embedding in the space shared with images."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ids (1, tokens) int64 to hidden states (1, tokens, dim) and an embedding (1, projection dim)."""
        layers = len(self._text_model.encoder.layers)
        hidden = self._run_first_layers(ids, layers - 1)
        pooled = self._pool(ids, self._run_layers(hidden, layers - 1, layers))
        return hidden.float(), self.model.text_projection(pooled).float()


class T5Encoder(nn.Module):
    """T5's encoder, for prompts of any length.

    The attention bias depends on the distance of two tokens; beyond a maximum, all distances share one bias.
    """

    distances: Tensor

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        attention = self._first_attention
        self._max_distance = attention.relative_attention_max_distance
        # The table is computed from logarithms, which runtimes round differently; so it is stored as a constant.
        with unset_fake_temporarily():
            table = attention._relative_position_bucket(
                torch.arange(-self._max_distance, self._max_distance + 1),
                num_buckets=attention.relative_attention_num_buckets,
                max_distance=self._max_distance,
            )
        self.register_buffer("distances", table, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (1, T) int64 to hidden states (1, T, dim)."""
        states, bias = self.model.shared(ids), self._compute_position_bias(ids.shape[1])
        for block in self.model.encoder.block:
            states = block(states, position_bias=bias)[0]
        hidden: Tensor = self.model.encoder.final_layer_norm(states)
        return hidden.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes the ids of T tokens."""
        return (torch.zeros(1, sizes["T"], dtype=torch.int64),)

    @property
    def _first_attention(self) -> Any:
        """The attention of the first block, which holds the bias that all blocks share."""
        return self.model.encoder.block[0].layer[0].SelfAttention

    def _compute_position_bias(self, tokens: int) -> Tensor:
        """Returns the bias of the attention scores, (1, heads, tokens, tokens)."""
        positions = torch.arange(tokens)
        distances = (positions[None] - positions[:, None]).clamp(-self._max_distance, self._max_distance)
        bias: Tensor = self._first_attention.relative_attention_bias(self.distances[distances + self._max_distance])
        return bias.permute(2, 0, 1)[None]
