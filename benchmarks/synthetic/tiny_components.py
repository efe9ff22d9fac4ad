"""Tiny configs of genuine components: what pipelines of any class are put together from, with random weights.

All text encoders have the same width, and all denoisers read it; latents have four channels. Every class is here once;
what one pipeline needs otherwise stands with that pipeline.
"""

from __future__ import annotations

from typing import Any

WIDTH = 64  # of hidden states of text encoders and denoisers, and of CLIP's projection
HEADS, HEAD_WIDTH = 4, 16
ROPE_AXES = (4, 6, 6)  # of a head
VOCABULARY = 512
LATENTS = 4  # channels
PATCHED = 4 * LATENTS  # channels of a patch of 2 x 2

# ---------------------------------------------------------------- text encoders

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
TEXT_ENCODERS["Mistral3Model"] = TEXT_ENCODERS["Mistral3ForConditionalGeneration"]

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

# ---------------------------------------------------------------- denoisers

_HEADS: dict[str, Any] = {"num_attention_heads": HEADS, "attention_head_dim": HEAD_WIDTH}
_COGVIEW: dict[str, Any] = _HEADS | {
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "num_layers": 2,
    "text_embed_dim": WIDTH,
    "time_embed_dim": WIDTH,
    "condition_dim": 4,
    "sample_size": 8,
}
_STREAMS: dict[str, Any] = _HEADS | {
    "in_channels": PATCHED,
    "num_layers": 1,
    "num_single_layers": 1,
    "joint_attention_dim": WIDTH,
}
_STREAMS |= {"axes_dims_rope": ROPE_AXES}

DENOISERS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": {
        "sample_size": 8,
        "block_out_channels": (32, WIDTH),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": WIDTH,
    },
    "FluxTransformer2DModel": _STREAMS | {"pooled_projection_dim": WIDTH, "guidance_embeds": True},
    "Flux2Transformer2DModel": _STREAMS
    | {"joint_attention_dim": 3 * WIDTH, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False},
    "ChromaTransformer2DModel": _STREAMS
    | {"approximator_num_channels": 16, "approximator_hidden_dim": WIDTH, "approximator_layers": 1},
    "OvisImageTransformer2DModel": _STREAMS | {"out_channels": PATCHED},
    "LongCatImageTransformer2DModel": _STREAMS | {"pooled_projection_dim": WIDTH},
    "BriaTransformer2DModel": _STREAMS,
    "BriaFiboTransformer2DModel": _STREAMS | {"joint_attention_dim": 2 * WIDTH, "text_encoder_dim": WIDTH},
    "SD3Transformer2DModel": _HEADS
    | {
        "sample_size": 8,
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "num_layers": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": WIDTH,
        "pooled_projection_dim": 2 * WIDTH,
        "pos_embed_max_size": 16,
    },
    "PixArtTransformer2DModel": _HEADS
    | {
        "sample_size": 8,
        "in_channels": LATENTS,
        "out_channels": 2 * LATENTS,
        "num_layers": 2,
        "cross_attention_dim": WIDTH,
        "caption_channels": WIDTH,
        "use_additional_conditions": False,
    },
    "SanaTransformer2DModel": _HEADS
    | {
        "sample_size": 16,
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "num_layers": 2,
        "num_cross_attention_heads": HEADS,
        "cross_attention_head_dim": HEAD_WIDTH,
        "cross_attention_dim": WIDTH,
        "caption_channels": WIDTH,
    },
    "QwenImageTransformer2DModel": _HEADS
    | {
        "in_channels": PATCHED,
        "out_channels": LATENTS,
        "num_layers": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": ROPE_AXES,
    },
    "ZImageTransformer2DModel": {
        "in_channels": LATENTS,
        "dim": 192,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 3,
        "n_kv_heads": 3,
        "cap_feat_dim": WIDTH,
        "axes_dims": [16, 24, 24],
        "axes_lens": [1024, 64, 64],
    },
    "HunyuanImageTransformer2DModel": _HEADS
    | {
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "text_embed_dim": WIDTH,
        "text_embed_2_dim": WIDTH,
        "rope_axes_dim": (8, 8),
    },
    "HunyuanDiT2DModel": _HEADS
    | {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": LATENTS,
        "hidden_size": WIDTH,
        "num_layers": 2,
        "cross_attention_dim": WIDTH,
        "cross_attention_dim_t5": WIDTH,
        "pooled_projection_dim": WIDTH,
        "text_len": 77,
        "text_len_t5": 256,
        "use_style_cond_and_image_meta_size": False,
    },
    "AuraFlowTransformer2DModel": _HEADS
    | {
        "sample_size": 8,
        "num_mmdit_layers": 1,
        "num_single_dit_layers": 1,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": WIDTH,
        "pos_embed_max_size": 256,
    },
    "CogView3PlusTransformer2DModel": _COGVIEW | {"pos_embed_max_size": 8},
    "CogView4Transformer2DModel": _COGVIEW,
    "Lumina2Transformer2DModel": {
        "sample_size": 8,
        "in_channels": LATENTS,
        "hidden_size": WIDTH,
        "num_layers": 1,
        "num_refiner_layers": 1,
        "num_attention_heads": HEADS,
        "num_kv_heads": 2,
        "multiple_of": 64,
        "axes_dim_rope": ROPE_AXES,
        "axes_lens": (512, 64, 64),
        "cap_feat_dim": WIDTH,
    },
    "LuminaNextDiT2DModel": {
        "sample_size": 8,
        "in_channels": LATENTS,
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_attention_heads": HEADS,
        "num_kv_heads": HEADS,
        "multiple_of": 64,
        "cross_attention_dim": WIDTH,
    },
    "ErnieImageTransformer2DModel": {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_layers": 2,
        "ffn_hidden_size": 2 * WIDTH,
        "in_channels": PATCHED,
        "out_channels": PATCHED,
        "text_in_dim": WIDTH,
        "rope_axes_dim": ROPE_AXES,
    },
    "HiDreamImageTransformer2DModel": _HEADS
    | {
        "patch_size": 2,
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "num_layers": 1,
        "num_single_layers": 1,
        "caption_channels": [WIDTH, WIDTH],
        "text_emb_dim": 2 * WIDTH,
        "num_routed_experts": 4,
        "num_activated_experts": 2,
        "axes_dims_rope": ROPE_AXES,
        "max_resolution": (16, 16),
        "llama_layers": [0, 1],
    },
    "PRXTransformer2DModel": {
        "in_channels": LATENTS,
        "context_in_dim": WIDTH,
        "hidden_size": WIDTH,
        "mlp_ratio": 2.0,
        "num_heads": HEADS,
        "depth": 2,
        "axes_dim": [8, 8],
    },
    "Kandinsky5Transformer3DModel": {
        "in_visual_dim": LATENTS,
        "in_text_dim": WIDTH,
        "in_text_dim2": WIDTH,
        "time_dim": WIDTH,
        "out_visual_dim": LATENTS,
        "model_dim": WIDTH,
        "ff_dim": 2 * WIDTH,
        "num_text_blocks": 1,
        "num_visual_blocks": 1,
        "axes_dims": ROPE_AXES,
    },
    "PriorTransformer": _HEADS | {"num_layers": 1, "embedding_dim": WIDTH, "num_embeddings": 77},
    "Kandinsky3UNet": {
        "time_embedding_dim": WIDTH,
        "groups": 2,
        "attention_head_dim": HEAD_WIDTH,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "cross_attention_dim": WIDTH,
        "encoder_hid_dim": WIDTH,
    },
    "Krea2Transformer2DModel": _HEADS
    | {
        "in_channels": PATCHED,
        "num_layers": 1,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "timestep_embed_dim": WIDTH,
        "text_hidden_dim": WIDTH,
        "num_text_layers": 2,
        "text_num_attention_heads": HEADS,
        "text_num_key_value_heads": HEADS,
        "text_intermediate_size": 2 * WIDTH,
        "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
        "axes_dims_rope": ROPE_AXES,
    },
}

# ---------------------------------------------------------------- decoders

_KL = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": LATENTS,
}
_CAUSAL = {
    "base_dim": 8,
    "z_dim": LATENTS,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.0] * LATENTS,
    "latents_std": [1.0] * LATENTS,
}
DECODERS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": _KL | {"sample_size": 64, "scaling_factor": 0.36, "shift_factor": 0.12},
    "AutoencoderKLFlux2": _KL | {"sample_size": 64},
    "AutoencoderKLQwenImage": _CAUSAL | {"temperal_downsample": [False, True, True]},
    "AutoencoderKLWan": _CAUSAL | {"temperal_downsample": [False, True, True]},
    "AutoencoderDC": {
        "latent_channels": LATENTS,
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
    },
    "AutoencoderKLHunyuanImage": {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": LATENTS,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "spatial_compression_ratio": 2,
        "sample_size": 64,
        "scaling_factor": 0.5,
    },
    "VQModel": _KL | {"num_vq_embeddings": 16, "sample_size": 64},
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "FlowMatchEulerDiscreteScheduler": {},
    "DDIMScheduler": {"clip_sample": False, "steps_offset": 1},
    "DDPMScheduler": {},
    "LCMScheduler": {},
    "SCMScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "CogVideoXDDIMScheduler": {},
    "UnCLIPScheduler": {"variance_type": "fixed_small_log", "prediction_type": "sample", "clip_sample_range": 5.0},
}
