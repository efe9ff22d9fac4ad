"""What tiny pipelines need otherwise than their constructors' annotations and the common configs say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .tiny_sizes import LATENTS, SIDE, WIDTH


@dataclass(frozen=True)
class Variation:
    """What a pipeline needs otherwise than its constructor's annotations and the common configs say.

    Attributes:
        classes: Class of a component, by the constructor's parameter; None leaves the component out.
        configs: Changes of a component's config, by the constructor's parameter.
        arguments: Other arguments of the constructor.
    """

    classes: dict[str, str | None] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


_NO_CHECKER = {"requires_safety_checker": False}
_TWO_TEXTS = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "cross_attention_dim": 2 * WIDTH,
    "use_linear_projection": True,
}
_IMAGE_PRIOR = {
    "out_channels": 8,
    "addition_embed_type": "image",
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "encoder_hid_dim": WIDTH,
    "encoder_hid_dim_type": "image_proj",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 16,
}
_PROJECTED_TEXT = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "encoder_hid_dim": WIDTH,
    "encoder_hid_dim_type": "text_proj",
    "use_linear_projection": True,
}
# T5's states are wider than those of both CLIPs side by side, which are padded to their width.
_THREE_TEXTS = {"text_encoder_3": {"d_model": 2 * WIDTH}, "transformer": {"joint_attention_dim": 2 * WIDTH}}
_MOVQ = {"norm_type": "spatial", "vq_embed_dim": 4, "block_out_channels": (32,) * 4, "norm_num_groups": 32}
_TEXT_IMAGE_PRIOR = _IMAGE_PRIOR | {"addition_embed_type": "text_image", "encoder_hid_dim_type": "text_image_proj"}
VARIATIONS: dict[str, Variation] = {
    "StableDiffusionPAGPipeline": Variation(arguments=_NO_CHECKER),
    "StableDiffusionXLPAGPipeline": Variation(configs={"unet": _TWO_TEXTS}, arguments={"add_watermarker": False}),
    "KandinskyV22CombinedPipeline": Variation(configs={"unet": _IMAGE_PRIOR, "movq": _MOVQ}),
    "KandinskyCombinedPipeline": Variation(configs={"unet": _TEXT_IMAGE_PRIOR, "movq": _MOVQ}),
    "KandinskyPipeline": Variation(configs={"unet": _TEXT_IMAGE_PRIOR, "movq": _MOVQ}),
    "Kandinsky3Pipeline": Variation(configs={"movq": _MOVQ}),
    "StableCascadeCombinedPipeline": Variation(
        configs={
            "decoder": {"patch_size": 2, "effnet_in_channels": LATENTS, "timestep_conditioning_type": ("sca",)},
            "prior_prior": {"clip_text_in_channels": WIDTH, "clip_image_in_channels": WIDTH},
        }
    ),
    "Flux2Pipeline": Variation(
        configs={
            "text_encoder": {"text_config": {"num_hidden_layers": 30}},
            "transformer": {"guidance_embeds": True},
        }
    ),
    "BriaFibo2Pipeline": Variation(configs={"text_encoder": {"text_config": {"num_hidden_layers": 36}}}),
    "Ideogram4Pipeline": Variation(
        classes={"text_encoder": "Qwen3VLModel"}, configs={"text_encoder": {"text_config": {"num_hidden_layers": 36}}}
    ),
    "NucleusMoEImagePipeline": Variation(configs={"text_encoder": {"text_config": {"num_hidden_layers": 8}}}),
    "GlmImagePipeline": Variation(
        configs={
            "text_encoder": {"vocab_size": 384},
            "vae": {"latents_mean": [0.0] * LATENTS, "latents_std": [1.0] * LATENTS},
        }
    ),
    "LongCatImagePipeline": Variation(
        configs={"vae": {"latent_channels": 16}, "transformer": {"in_channels": 64}}  # the pipeline makes no others
    ),
    "BriaFiboPipeline": Variation(configs={"transformer": {"in_channels": LATENTS}}),
    "PRXPixelPipeline": Variation(
        classes={"text_encoder": "Qwen3Model"}, configs={"transformer": {"in_channels": 3, "bottleneck_size": 32}}
    ),
    "KolorsPipeline": Variation(configs={"unet": _PROJECTED_TEXT}),
    "KolorsPAGPipeline": Variation(configs={"unet": _PROJECTED_TEXT}),
    "LDMTextToImagePipeline": Variation(classes={"bert": "LDMBertModel", "tokenizer": "BertTokenizer"}),
    "HiDreamImagePipeline": Variation(
        configs={name: {"max_position_embeddings": 248} for name in ("text_encoder", "text_encoder_2")}
    ),
    "SanaPAGPipeline": Variation(classes={"text_encoder": "Gemma2Model"}),
    "HunyuanDiTPAGPipeline": Variation(arguments=_NO_CHECKER),
    "StableDiffusionPipeline": Variation(arguments=_NO_CHECKER),
    "LatentConsistencyModelPipeline": Variation(configs={"unet": {"time_cond_proj_dim": 32}}, arguments=_NO_CHECKER),
    "StableDiffusionXLPipeline": Variation(
        classes={"scheduler": "EulerDiscreteScheduler"},  # with which it is published
        configs={"unet": _TWO_TEXTS},
        arguments={"add_watermarker": False},
    ),
    "Flux2KleinPipeline": Variation(configs={"text_encoder": {"num_hidden_layers": 28}}),
    "Flux2KleinKVPipeline": Variation(configs={"text_encoder": {"num_hidden_layers": 28}}),
    "StableDiffusion3Pipeline": Variation(configs=_THREE_TEXTS),
    "StableDiffusion3PAGPipeline": Variation(configs=_THREE_TEXTS),
    "SanaPipeline": Variation(classes={"text_encoder": "Gemma2Model"}),
    "SanaSprintPipeline": Variation(
        classes={"text_encoder": "Gemma2Model", "scheduler": "SCMScheduler"},
        configs={"transformer": {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}},
    ),
    "ZImagePipeline": Variation(classes={"text_encoder": "Qwen3Model"}),
    "ZImageOmniPipeline": Variation(
        classes={"text_encoder": "Qwen3Model"}, configs={"transformer": {"siglip_feat_dim": 32}}
    ),
    "Lumina2Pipeline": Variation(classes={"text_encoder": "Gemma2Model"}),
    "LuminaPipeline": Variation(classes={"text_encoder": "GemmaModel"}),
    "IFPipeline": Variation(
        configs={"unet": {"in_channels": 3, "out_channels": 6, "sample_size": SIDE, "act_fn": "gelu"}},
        arguments=_NO_CHECKER,
    ),
    "HunyuanDiTPipeline": Variation(arguments=_NO_CHECKER),
    "Krea2Pipeline": Variation(arguments={"text_encoder_select_layers": (0, 1)}),
}
