"""The names of Z-Image's tensors in the files of ComfyUI, stable-diffusion.cpp and llama.cpp.

The transformer has the names of the original release, in which queries, keys and values are one layer. The text
encoder has llama.cpp's names for Qwen3.
"""

from ..base.single_file import FusedRows, GgufComponent, SingleFileNames

TRANSFORMER_NAMES = SingleFileNames(
    renames=(
        (r"^all_(x_embedder|final_layer)\.2-1\.", r"\1."),
        (r"\.attention\.to_out\.0\.", ".attention.out."),
        (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
    ),
    fused=(FusedRows((".to_q.weight", ".to_k.weight", ".to_v.weight"), ".qkv.weight"),),
)
TEXT_ENCODER_NAMES = SingleFileNames(
    renames=(
        (r"^embed_tokens\.", "token_embd."),
        (r"^norm\.", "output_norm."),
        (r"^layers\.", "blk."),
        (r"\.input_layernorm\.", ".attn_norm."),
        (r"\.post_attention_layernorm\.", ".ffn_norm."),
        (r"\.self_attn\.([qkv])_proj\.", r".attn_\1."),
        (r"\.self_attn\.o_proj\.", ".attn_output."),
        (r"\.self_attn\.([qk])_norm\.", r".attn_\1_norm."),
        (r"\.mlp\.(gate|up|down)_proj\.", r".ffn_\1."),
    ),
)
TEXT_ENCODER_KEYS = (
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
GGUF = (
    GgufComponent("transformer", "lumina2", TRANSFORMER_NAMES),
    GgufComponent("text_encoder", "qwen3", TEXT_ENCODER_NAMES, TEXT_ENCODER_KEYS),
)
