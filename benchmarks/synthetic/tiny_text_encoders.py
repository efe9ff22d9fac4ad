"""Tiny configs of genuine text encoders, and of image encoders that some pipelines need beside them."""

from __future__ import annotations

from typing import Any

from .tiny_sizes import HEAD_WIDTH, HEADS, VOCABULARY, WIDTH

_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": HEADS,
}
_LANGUAGE = _SHARED | {
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "head_dim": HEAD_WIDTH,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": HEAD_WIDTH,
    "d_ff": 2 * WIDTH,
    "num_heads": HEADS,
}
_T5 |= {"num_layers": 2, "feed_forward_proj": "gated-gelu"}
_CLIP = _SHARED | {"num_hidden_layers": 2, "projection_dim": WIDTH, "bos_token_id": 0, "eos_token_id": 1}
_CLIP |= {"pad_token_id": 1}
_ROPE_SECTIONS = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
_QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH}

TEXT_ENCODERS: dict[str, dict[str, Any]] = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "T5EncoderModel": _T5,
    "UMT5EncoderModel": _T5,
    "BertModel": _SHARED | {"num_hidden_layers": 2, "max_position_embeddings": 512},
    "Qwen3Model": _LANGUAGE,
    "Qwen3ForCausalLM": _LANGUAGE,
    "Gemma2Model": _LANGUAGE,
    "GemmaModel": _LANGUAGE,
    "GlmModel": _LANGUAGE,
    "LlamaForCausalLM": _LANGUAGE,
    "SmolLM3ForCausalLM": _LANGUAGE,
    "Qwen2_5_VLForConditionalGeneration": {
        "text_config": _LANGUAGE | {"rope_parameters": _ROPE_SECTIONS},
        "vision_config": _QWEN_VISION | {"fullatt_block_indexes": [0]},
    },
    "Mistral3ForConditionalGeneration": {
        "text_config": _LANGUAGE | {"model_type": "mistral"},
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 16,
            "image_size": 32,
            "patch_size": 8,
        },
    },
}
TEXT_ENCODERS["Qwen3VLModel"] = {
    "text_config": _LANGUAGE | {"rope_parameters": _ROPE_SECTIONS},
    "vision_config": _QWEN_VISION | {"deepstack_visual_indexes": [0]},
}
TEXT_ENCODERS["Qwen3VLForConditionalGeneration"] = TEXT_ENCODERS["Qwen3VLModel"]
TEXT_ENCODERS["Mistral3Model"] = TEXT_ENCODERS["Mistral3ForConditionalGeneration"]
_T5_GEMMA = _LANGUAGE | {"query_pre_attn_scalar": HEAD_WIDTH, "sliding_window": 64}
TEXT_ENCODERS["T5GemmaEncoder"] = {"encoder": _T5_GEMMA, "decoder": _T5_GEMMA}
TEXT_ENCODERS["LDMBertModel"] = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "encoder_ffn_dim": 2 * WIDTH,
    "encoder_attention_heads": HEADS,
    "head_dim": HEAD_WIDTH,
}
TEXT_ENCODERS["MultilingualCLIP"] = _SHARED | {
    "num_hidden_layers": 2,
    "max_position_embeddings": 514,
    "transformerDimSize": WIDTH,
    "imageDimSize": WIDTH,
}
TEXT_ENCODERS["ChatGLMModel"] = {
    "num_layers": 2,
    "padded_vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "ffn_hidden_size": 2 * WIDTH,
    "kv_channels": HEAD_WIDTH,
    "num_attention_heads": HEADS,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "add_qkv_bias": True,
    "original_rope": True,
}
TEXT_ENCODERS["GlmImageForConditionalGeneration"] = {
    "text_config": _LANGUAGE | {"rope_parameters": _ROPE_SECTIONS, "vision_vocab_size": 128, "eos_token_id": 200},
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "vq_config": {"embed_dim": 32, "num_embeddings": 64, "latent_channels": 32},
    "image_start_token_id": 126,
    "image_end_token_id": 127,
}

# Encoders of images, which some pipelines need although a prompt does not reach them.
IMAGE_ENCODERS: dict[str, dict[str, Any]] = {
    "Siglip2VisionModel": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_patches": 16,
        "patch_size": 8,
    },
    "CLIPVisionModelWithProjection": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
        "image_size": 32,
        "patch_size": 8,
    },
}
