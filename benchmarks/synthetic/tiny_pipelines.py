"""Tiny pipelines of any text-to-image class of diffusers, with random weights.

The parameters of a constructor say which components a class has; their configs are in `tiny_components`. What a class
needs otherwise is listed here.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...prompts.prompt import Prompt, save_prompts
from .tiny_components import DECODERS, DENOISERS, IMAGE_ENCODERS, SCHEDULERS, TEXT_ENCODERS, WIDTH

SIDE = 64  # pixels of an image
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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


IMAGE_PROCESSORS = ("CLIPImageProcessor", "Siglip2ImageProcessor")
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
VARIATIONS: dict[str, Variation] = {
    "StableDiffusionPAGPipeline": Variation(arguments=_NO_CHECKER),
    "StableDiffusionXLPAGPipeline": Variation(configs={"unet": _TWO_TEXTS}, arguments={"add_watermarker": False}),
    "KandinskyV22CombinedPipeline": Variation(
        configs={
            "unet": _IMAGE_PRIOR,
            "movq": {"norm_type": "spatial", "vq_embed_dim": 4, "block_out_channels": (32,) * 4, "norm_num_groups": 32},
        }
    ),
    "HiDreamImagePipeline": Variation(
        configs={name: {"max_position_embeddings": 248} for name in ("text_encoder", "text_encoder_2")}
    ),
    "SanaPAGPipeline": Variation(classes={"text_encoder": "Gemma2Model"}),
    "HunyuanDiTPAGPipeline": Variation(arguments=_NO_CHECKER),
    "StableDiffusionPipeline": Variation(arguments=_NO_CHECKER),
    "LatentConsistencyModelPipeline": Variation(configs={"unet": {"time_cond_proj_dim": 32}}, arguments=_NO_CHECKER),
    "StableDiffusionXLPipeline": Variation(configs={"unet": _TWO_TEXTS}, arguments={"add_watermarker": False}),
    "KolorsPipeline": Variation(),
    "FluxPipeline": Variation(),
    "Flux2KleinPipeline": Variation(configs={"text_encoder": {"num_hidden_layers": 28}}),
    "Flux2KleinKVPipeline": Variation(configs={"text_encoder": {"num_hidden_layers": 28}}),
    "PixArtAlphaPipeline": Variation(),
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
    "ErnieImagePipeline": Variation(),
    "PRXPipeline": Variation(),
    "HunyuanDiTPipeline": Variation(arguments=_NO_CHECKER),
    "Krea2Pipeline": Variation(arguments={"text_encoder_select_layers": (0, 1)}),
    "StableDiffusion3Pipeline": Variation(),
}


def write_tiny_pipeline(name: str, folder: Path) -> None:
    """Writes a pipeline folder with a few prompts; its weights are equal each time.

    Args:
        name: A pipeline class of diffusers.
        folder: The folder to write.

    Raises:
        ValueError: There is no tiny config of one of its components.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = build_tiny_pipeline(name)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                randomize_weights(component)
    pipeline.save_pretrained(folder)
    (folder / "prompts").mkdir()
    prompts = [Prompt(id=text, prompt=text, language="en") for text in ("a cat", "two dogs")]
    for purpose in ("calibration", "evaluation"):
        save_prompts(prompts, folder / "prompts" / f"{purpose}.jsonl")


def build_tiny_pipeline(name: str) -> Any:
    """Builds a tiny pipeline.

    Raises:
        ValueError: There is no tiny config of one of its components.
    """
    import diffusers

    cls = getattr(diffusers, name)
    variation = VARIATIONS.get(name, Variation())
    arguments: dict[str, Any] = dict(variation.arguments)
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if parameter.name in arguments:
            continue
        if parameter.name in variation.classes:
            class_name = variation.classes[parameter.name]
        elif parameter.name in cls._optional_components:
            class_name = None if _is_image_component(parameter.name) else _find_class(parameter)
        elif parameter.default is not inspect.Parameter.empty and _find_class(parameter) is None:
            continue
        else:
            class_name = _find_class(parameter)
            if class_name is None:
                raise ValueError(f"no tiny config of {parameter.name}: {parameter.annotation}")
        config = variation.configs.get(parameter.name, {})
        arguments[parameter.name] = None if class_name is None else build_tiny_component(class_name, config)
    return cls(**arguments)


def build_tiny_component(class_name: str, changes: dict[str, Any]) -> Any:
    """Builds a component with random weights.

    Args:
        class_name: A class of diffusers or transformers.
        changes: Changes of its config.
    """
    import diffusers
    import transformers

    for configs in (DENOISERS, DECODERS, SCHEDULERS):
        if class_name in configs:
            return getattr(diffusers, class_name)(**(configs[class_name] | changes))
    for configs in (TEXT_ENCODERS, IMAGE_ENCODERS):
        if class_name in configs:
            cls = getattr(transformers, class_name)
            return cls(cls.config_class(**(configs[class_name] | changes)))
    if class_name in IMAGE_PROCESSORS:
        return getattr(transformers, class_name)()
    return TOKENIZERS[class_name]()


@torch.no_grad()
def randomize_weights(model: nn.Module) -> None:
    """Draws weights that keep the size of activations and hide nothing: biases and norms are random too."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                parameter.normal_()
            elif parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.eval()


def _is_image_component(name: str) -> bool:
    """Whether a component that may be left out reads or checks images."""
    return bool(re.search("image|feature|safety|watermark|siglip|guider|^pe", name))


def _find_class(parameter: inspect.Parameter) -> str | None:
    """Returns the first class of a parameter's annotation that has a tiny config."""
    names = [name.removesuffix("Pil") for name in re.findall(r"\w+", str(parameter.annotation))]
    known = {*DENOISERS, *DECODERS, *SCHEDULERS, *TEXT_ENCODERS, *IMAGE_ENCODERS, *IMAGE_PROCESSORS, *TOKENIZERS}
    names = ["DDIMScheduler" if name == "KarrasDiffusionSchedulers" else name for name in names]
    return next((name for name in names if name in known), None)


# ---------------------------------------------------------------- tokenizers


def _build_clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    vocabulary = [*SPECIAL_TOKENS, *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer({token: number for number, token in enumerate(vocabulary)}, [], model_max_length=77)


def _build_t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *LETTERS]
    return T5Tokenizer([(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=512)


def _build_byte_tokenizer() -> Any:
    """Byte-level BPE without merges, with the chat template of language models: every byte is a token."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer: Any = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    return tokenizer


def _build_byt5_tokenizer() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


TOKENIZERS = {
    "CLIPTokenizer": _build_clip_tokenizer,
    "T5Tokenizer": _build_t5_tokenizer,
    "T5TokenizerFast": _build_t5_tokenizer,
    "ByT5Tokenizer": _build_byt5_tokenizer,
    **dict.fromkeys(
        ("Qwen2Tokenizer", "Qwen2TokenizerFast", "AutoTokenizer", "GemmaTokenizer", "TokenizersBackend"),
        _build_byte_tokenizer,
    ),
    "BertTokenizer": _build_byte_tokenizer,
}
