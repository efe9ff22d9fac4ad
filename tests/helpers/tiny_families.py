"""Genuine pipelines of other families with random weights, two layers deep: what their graphs are held against.

All weights are random and large, biases and norms too, so that nothing that is attended to, added or left out can hide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SIDE = 64  # pixels
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROJECTED = 24  # width of what CLIP's text encoders are projected to
FLUX, SD3, SDXL = "FluxPipeline", "StableDiffusion3Pipeline", "StableDiffusionXLPipeline"
KLEIN, QWEN = "Flux2KleinPipeline", "QwenImagePipeline"
CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_family(pipeline: str, folder: Path, **config: Any) -> None:
    """Writes the pipeline folder; its weights are the same each time. The caller's random state is left alone.

    config: what its denoiser's config says otherwise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        instance = BUILDERS[pipeline](config)
        for part in instance.components.values():
            if isinstance(part, torch.nn.Module):
                randomize(part)
        if pipeline in (KLEIN, QWEN):
            strengthen_prompt(instance.transformer)
    instance.save_pretrained(folder)


@torch.no_grad()
def randomize(model: torch.nn.Module) -> Any:
    """Random weights, in place: matrices that keep the size of their inputs, vectors 0.3 around where they began."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, torch.nn.Embedding):
                parameter.normal_()
            elif parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def strengthen_prompt(transformer: torch.nn.Module) -> None:
    """Makes images depend on the prompt: few of its many tokens differ from those of another, in a chat template.

    Queries and keys become larger, so that attention singles out tokens; so do the prompt's values and the velocity.
    """
    for name, module in transformer.named_modules():
        if name.endswith(("norm_q", "norm_added_k", "add_v_proj")) or name == "proj_out":
            module.weight.mul_(4)


# ---------------------------------------------------------------- parts


def clip(projected: bool = False, eos: int = 1) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=PROJECTED,
        bos_token_id=0,
        eos_token_id=eos,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size": 64, "d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu"))


def vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=0,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=0.36,
        shift_factor=0.12,
    )


def flux_transformer(**config: Any) -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=16,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
        **{"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True} | config,
    )


def sd3_transformer(**config: Any) -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=SIDE // 8,
        in_channels=4,
        out_channels=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=2 * PROJECTED,
        pos_embed_max_size=12,
        **{"num_layers": 2, "dual_attention_layers": (0,), "qk_norm": "rms_norm"} | config,
    )


def sdxl_unet(**config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + PROJECTED,
        **{"block_out_channels": (32, 64, 64), "layers_per_block": 1} | config,  # so that a group fits into inputs
    )


def klein_transformer(**config: Any) -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        in_channels=16,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 32,
        axes_dims_rope=(4, 4, 4, 4),
        **{"num_layers": 1, "num_single_layers": 1, "guidance_embeds": False} | config,
    )


def klein_vae() -> Any:
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=0, norm_num_groups=4, latent_channels=4, sample_size=SIDE
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    return vae


def qwen3(vocabulary: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=True, **sizes, **heads))


def qwen25_vl(vocabulary: int) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": vocabulary}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen_transformer(**config: Any) -> Any:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        **{"num_layers": 2} | config,
    )


def qwen_vae() -> Any:
    from diffusers import AutoencoderKLQwenImage

    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.8, 1.2, 2.0]}
    return AutoencoderKLQwenImage(base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, **statistics)


def qwen_tokenizer() -> Any:
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer: Any = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"eos_token": CHAT[2], "pad_token": CHAT[0], "additional_special_tokens": CHAT[1:]})
    tokenizer.chat_template, tokenizer.padding_side = CHAT_TEMPLATE, "right"
    return tokenizer


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    vocabulary = [*SPECIAL, *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer({token: number for number, token in enumerate(vocabulary)}, [], model_max_length=77)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *LETTERS]
    return T5Tokenizer([(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=512)


# ---------------------------------------------------------------- pipelines


def _flux(config: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=flux_transformer(**config),
    )


def _sd3(config: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(
        transformer=sd3_transformer(**config),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=t5_tokenizer(),
    )


def _sdxl(config: dict[str, Any]) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=sdxl_unet(**config),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )


def _klein(config: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

    tokenizer = qwen_tokenizer()
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=klein_vae(),
        text_encoder=qwen3(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=klein_transformer(**config),
    )


def _qwen(config: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline

    tokenizer = qwen_tokenizer()
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02, max_shift=0.9),
        vae=qwen_vae(),
        text_encoder=qwen25_vl(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=qwen_transformer(**config),
    )


BUILDERS: dict[str, Callable[[dict[str, Any]], Any]] = {FLUX: _flux, SD3: _sd3, SDXL: _sdxl, KLEIN: _klein, QWEN: _qwen}
