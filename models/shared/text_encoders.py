"""CLIP's text encoder and T5's encoder as functions of tensors, as the pipelines of several families read them.

Outputs are float32 whatever the weights are. Nothing is masked: these pipelines attend to padding as to any token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

LEGACY_EOS = 2  # in the configs of the first published models, whose end of text is the largest token instead


class _ClipTextEncoder(nn.Module):
    """A text encoder of CLIP, of one length."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def example(self, _: Mapping[str, int]) -> tuple[Tensor]:
        """Token ids."""
        return (torch.zeros(1, self.model.config.max_position_embeddings, dtype=torch.int64),)

    @property
    def _text_model(self) -> Any:
        """The encoder itself, beside which a model with a projection has that."""
        return getattr(self.model, "text_model", self.model)

    def _run_first_layers(self, ids: Tensor, layers: int) -> Tensor:
        """Hidden states (1, tokens, dim) after the first layers."""
        states: Tensor = self._text_model.embeddings(ids)
        return self._run_layers(states, 0, layers)

    def _run_layers(self, states: Tensor, first: int, last: int) -> Tensor:
        for layer in self._text_model.encoder.layers[first:last]:
            states = layer(states, attention_mask=None, is_causal=True)
        return states

    def _pool(self, ids: Tensor, states: Tensor) -> Tensor:
        """Of finished states, the row (1, dim) where the text ends: at the first end token."""
        eos = self.model.config.eos_token_id
        numbers = ids.int() if eos == LEGACY_EOS else (ids == eos).int()
        pooled: Tensor = self._text_model.final_layer_norm(states).index_select(1, numbers.argmax(dim=-1))[:, 0]
        return pooled


class ClipHidden(_ClipTextEncoder):
    """Reads a prompt: what the last but one layer leaves, not normalized."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids (1, tokens) int64 -> hidden states (1, tokens, dim)."""
        return self._run_first_layers(ids, len(self._text_model.encoder.layers) - 1).float()


class ClipPooled(_ClipTextEncoder):
    """Reads a prompt as a whole."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids (1, tokens) int64 -> pooled (1, dim)."""
        return self._pool(ids, self._run_first_layers(ids, len(self._text_model.encoder.layers))).float()


class ClipProjected(_ClipTextEncoder):
    """Reads a prompt, and as a whole too, projected to where pictures are."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (1, tokens) int64 -> hidden states (1, tokens, dim) of the last but one layer, pooled (1, projected)."""
        layers = len(self._text_model.encoder.layers)
        hidden = self._run_first_layers(ids, layers - 1)
        pooled = self._pool(ids, self._run_layers(hidden, layers - 1, layers))
        return hidden.float(), self.model.text_projection(pooled).float()


class T5(nn.Module):
    """Reads a prompt of any length, by T5's encoder.

    How far apart two tokens are decides what their attention is biased by; beyond a distance all are one.
    """

    distances: Tensor

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        attention = self._first_attention
        self._max_distance = attention.relative_attention_max_distance
        with unset_fake_temporarily():  # the table is a constant, made of logarithms that runtimes round their own way
            table = attention._relative_position_bucket(
                torch.arange(-self._max_distance, self._max_distance + 1),
                num_buckets=attention.relative_attention_num_buckets,
                max_distance=self._max_distance,
            )
        self.register_buffer("distances", table, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (1, T) int64 -> hidden states (1, T, dim)."""
        states, bias = self.model.shared(ids), self._compute_position_bias(ids.shape[1])
        for block in self.model.encoder.block:
            states = block(states, position_bias=bias)[0]
        hidden: Tensor = self.model.encoder.final_layer_norm(states)
        return hidden.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Ids of T tokens."""
        return (torch.zeros(1, sizes["T"], dtype=torch.int64),)

    @property
    def _first_attention(self) -> Any:
        """The attention of the first block, which knows of distances for all."""
        return self.model.encoder.block[0].layer[0].SelfAttention

    def _compute_position_bias(self, tokens: int) -> Tensor:
        """What is added to the scores of attention, (1, heads, tokens, tokens)."""
        places = torch.arange(tokens)
        apart = (places[None] - places[:, None]).clamp(-self._max_distance, self._max_distance)
        bias: Tensor = self._first_attention.relative_attention_bias(self.distances[apart + self._max_distance])
        return bias.permute(2, 0, 1)[None]
