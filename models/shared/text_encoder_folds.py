"""Scales that fold in text encoders, whichever family reads them."""

from __future__ import annotations

from ..base.family import Block, Component, Fold, ShiftChain

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
# Of T5's encoder with a gated feed-forward: the attention and the feed-forward are two layers of a block.
T5_FOLDS = (
    Fold(
        "layer.0.layer_norm", ("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"), "norm"
    ),
    Fold("layer.0.SelfAttention.v", ("layer.0.SelfAttention.o",), "rows"),
    Fold("layer.1.layer_norm", ("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"), "norm"),
    Fold("layer.1.DenseReluDense.wi_1", ("layer.1.DenseReluDense.wo",), "rows"),
)
# Of CLIP's text encoder. Nothing folds through the activation of its feed-forward.
CLIP_FOLDS = (
    Fold("layer_norm1", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "norm"),
    Fold("self_attn.v_proj", ("self_attn.out_proj",), "rows"),
    Fold("layer_norm2", ("mlp.fc1",), "norm"),
)
T5_BLOCKS = (Block("encoder.block.*", T5_FOLDS),)
CLIP_BLOCKS = (Block("encoder.layers.*", CLIP_FOLDS),)
CLIP_PROJECTED_BLOCKS = (Block("text_model.encoder.layers.*", CLIP_FOLDS),)


def make_t5_component(name: str) -> Component:
    """T5's encoder, which may be stored with the decoder that T5 has elsewhere."""
    classes = (("T5ForConditionalGeneration", ""),)
    return Component(
        name, "T5EncoderModel", T5_BLOCKS, role="text_encoder", weight_prefixes=classes, embeddings=("shared",)
    )
