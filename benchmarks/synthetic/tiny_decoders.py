"""Tiny configs of genuine decoders and schedulers."""

from __future__ import annotations

from typing import Any

from .tiny_sizes import LATENTS, WIDTH

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
    "AutoencoderKLQwenImage21": _CAUSAL
    | {
        "decoder_base_dim": 8,
        "dim_mult": [1, 1, 1, 1, 1],
        "temperal_downsample": [False, True, True, True],
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "num_encoder_blocks": (1, 1, 1, 1),
        "num_decoder_blocks": (1, 1, 1, 1),
        "latent_channels": LATENTS,
    },
    "PaellaVQModel": {
        "bottleneck_blocks": 1,
        "embed_dim": 16,
        "latent_channels": LATENTS,
        "num_vq_embeddings": 16,
    },
    "StableUnCLIPImageNormalizer": {"embedding_dim": WIDTH},
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
    "EulerDiscreteScheduler": {"beta_schedule": "scaled_linear", "steps_offset": 1},
    "DDPMWuerstchenScheduler": {},
    "HeunDiscreteScheduler": {"prediction_type": "sample", "use_karras_sigmas": True, "clip_sample": True},
    "UnCLIPScheduler": {"variance_type": "fixed_small_log", "prediction_type": "sample", "clip_sample_range": 5.0},
}
