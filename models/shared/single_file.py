"""llama.cpp's names for the tensors of text encoders, which ComfyUI-GGUF and stable-diffusion.cpp read as well."""

from ..base.single_file import SingleFileLayout, SingleFileNames

QWEN_RENAMES = (
    (r"^(model\.)?(language_model\.)?", ""),
    (r"^embed_tokens\.", "token_embd."),
    (r"^norm\.", "output_norm."),
    (r"^lm_head\.", "output."),
    (r"^layers\.", "blk."),
    (r"\.input_layernorm\.", ".attn_norm."),
    (r"\.post_attention_layernorm\.", ".ffn_norm."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn_\1."),
    (r"\.self_attn\.o_proj\.", ".attn_output."),
    (r"\.self_attn\.([qk])_norm\.", r".attn_\1_norm."),
    (r"\.mlp\.(gate|up|down)_proj\.", r".ffn_\1."),
)
QWEN_KEYS = (
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.value_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_parameters.rope_theta"),
    ("rope.freq_base", "rope_theta"),
    ("vocab_size", "vocab_size"),
)
T5_NAMES = SingleFileNames(
    renames=(
        (r"^shared\.", "token_embd."),
        (r"^encoder\.final_layer_norm\.", "enc.output_norm."),
        (r"^encoder\.block\.", "enc.blk."),
        (r"\.layer\.0\.SelfAttention\.([qkvo])\.", r".attn_\1."),
        (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".attn_rel_b."),
        (r"\.layer\.0\.layer_norm\.", ".attn_norm."),
        (r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn_gate."),
        (r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn_up."),
        (r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn_down."),
        (r"\.layer\.1\.layer_norm\.", ".ffn_norm."),
    ),
    omitted=r"^encoder\.embed_tokens\.",  # the same tensor as shared
)
T5_KEYS = (
    ("context_length", "n_positions"),
    ("block_count", "num_layers"),
    ("embedding_length", "d_model"),
    ("feed_forward_length", "d_ff"),
    ("attention.head_count", "num_heads"),
    ("attention.key_length", "d_kv"),
    ("attention.value_length", "d_kv"),
    ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
    ("attention.relative_buckets_count", "relative_attention_num_buckets"),
    ("vocab_size", "vocab_size"),
)
_QWEN3 = SingleFileLayout("qwen3", SingleFileNames(QWEN_RENAMES), QWEN_KEYS)
_QWEN_VL = SingleFileLayout(
    "qwen2vl",
    SingleFileNames(QWEN_RENAMES, omitted=r"^(model\.)?visual\."),  # llama.cpp has them in a file of their own
    (*QWEN_KEYS, *((key, f"text_config.{path}") for key, path in QWEN_KEYS)),
)
LAYOUTS = {
    "Qwen3Model": _QWEN3,
    "Qwen3ForCausalLM": _QWEN3,
    "Qwen2_5_VLForConditionalGeneration": _QWEN_VL,
    "T5EncoderModel": SingleFileLayout("t5encoder", T5_NAMES, T5_KEYS),
}
