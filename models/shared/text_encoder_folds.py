"""Scales that fold in text encoders, whichever family reads them."""

from __future__ import annotations

from ..base.family import Fold, ShiftChain

# Of causal decoders: Qwen3, and Qwen2.5, whose biases divide as rows do.
DECODER_FOLDS = (
    Fold("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "norm"),
    Fold("self_attn.v_proj", ("self_attn.o_proj",), "rows", ("num_attention_heads", "num_key_value_heads")),
    Fold("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "norm"),
    Fold("mlp.up_proj", ("mlp.down_proj",), "rows"),
)
PLAIN_DECODER_CHAINS = (
    ShiftChain(("self_attn.v_proj", "self_attn.o_proj"), cancelled_by_norm=False),
    ShiftChain(("mlp.up_proj", "mlp.down_proj"), cancelled_by_norm=False),
)
# Of those that normalize queries and keys, such as Qwen3.
DECODER_CHAINS = (ShiftChain(("self_attn.q_proj",)), ShiftChain(("self_attn.k_proj",)), *PLAIN_DECODER_CHAINS)
