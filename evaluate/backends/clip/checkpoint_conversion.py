"""open_clip's configuration and weights as transformers' CLIPModel has them, for the architectures that both know.

These are CLIP's own: a vision transformer read at its class token and a causal text transformer read at its last token.
The two differ in names, in the projections' direction, and in that open_clip keeps query, key and value as one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MODEL_KEYS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
VISION_KEYS = {"image_size", "patch_size", "layers", "width", "head_width", "mlp_ratio"}
TEXT_KEYS = {"context_length", "vocab_size", "hf_tokenizer_name", "width", "heads", "layers", "mlp_ratio"}
PREPROCESS_KEYS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
# open_clip's defaults, where its configuration leaves a key out (open_clip 3.3.0, model.py and transform.py).
VISION_DEFAULTS = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT_DEFAULTS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
DEFAULT_MEAN, DEFAULT_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {"bilinear": 2, "bicubic": 3}  # as Pillow numbers them

TENSOR_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
BLOCK_TENSOR_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TRANSPOSED = {"visual.proj", "text_projection"}
BLOCK_PATTERN = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def convert_model_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CLIPConfig's keys for open_clip's `model_cfg`.

    Raises:
        UserError: an architecture that only open_clip knows.
    """
    vision, text = settings.get("vision_cfg", {}), settings.get("text_cfg", {})
    _reject_unknown_keys(settings, MODEL_KEYS)
    _reject_unknown_keys(vision, VISION_KEYS)
    _reject_unknown_keys(text, TEXT_KEYS)
    vision, text = VISION_DEFAULTS | vision, TEXT_DEFAULTS | text
    if not isinstance(vision["layers"], int):
        raise _make_unsupported_error("convolutional towers")
    common = {
        "projection_dim": settings["embed_dim"],
        "hidden_act": "quick_gelu" if settings.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
    }
    return {
        "projection_dim": settings["embed_dim"],
        "vision_config": common
        | _convert_sizes(vision, heads=vision["width"] // vision["head_width"])
        | {"image_size": vision["image_size"], "patch_size": vision["patch_size"]},
        "text_config": common
        | _convert_sizes(text, heads=text["heads"])
        | {"max_position_embeddings": text["context_length"], "vocab_size": text["vocab_size"]}
        | {
            "eos_token_id": 2,
            "bos_token_id": None,
            "pad_token_id": None,
        },  # 2: the feature at the largest token is taken
    }


def convert_processor_config(settings: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """CLIPImageProcessor's keys for open_clip's `preprocess_cfg` and a tower of so many pixels a side.

    Raises:
        UserError: a way of resizing that only open_clip knows.
    """
    _reject_unknown_keys(settings, PREPROCESS_KEYS)
    resize_mode = settings.get("resize_mode", "shortest")
    if resize_mode not in ("shortest", "squash"):
        raise _make_unsupported_error(f"resize_mode: {resize_mode}")
    interpolation = settings.get("interpolation", "bicubic")
    if interpolation not in RESAMPLING:
        raise _make_unsupported_error(f"interpolation: {interpolation}")
    square = {"height": image_size, "width": image_size}
    return {
        "size": {"shortest_edge": image_size} if resize_mode == "shortest" else square,
        "crop_size": square,
        "do_center_crop": resize_mode == "shortest",
        "resample": RESAMPLING[interpolation],
        "image_mean": list(settings.get("mean", DEFAULT_MEAN)),
        "image_std": list(settings.get("std", DEFAULT_STD)),
    }


def convert_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under transformers' names.

    Raises:
        UserError: a tensor that CLIP's own architecture does not have.
    """
    return {name: tensor for key, value in weights.items() for name, tensor in _convert_tensor(key, value)}


def _convert_tensor(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    block = BLOCK_PATTERN.fullmatch(key)
    if block:
        tower = "vision_model" if block[1] else "text_model"
        yield from _convert_block_tensor(f"{tower}.encoder.layers.{block[2]}.", block[3], value)
        return
    stem, name = _match_name(key, TENSOR_NAMES)
    yield name + key.removeprefix(stem), value.T.contiguous() if stem in TRANSPOSED else value


def _convert_block_tensor(prefix: str, key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if key.startswith("attn.in_proj_"):
        kind = key.removeprefix("attn.in_proj_")
        for part, tensor in zip("qkv", value.chunk(3), strict=True):
            yield f"{prefix}self_attn.{part}_proj.{kind}", tensor.contiguous()
        return
    stem, name = _match_name(key, BLOCK_TENSOR_NAMES)
    yield prefix + name + key.removeprefix(stem), value


def _match_name(key: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The part of a key that has another name, and that name."""
    for stem, name in names.items():
        if key == stem or key.startswith(f"{stem}."):
            return stem, name
    raise _make_unsupported_error(f"the tensor {key}")


def _convert_sizes(tower: Mapping[str, Any], heads: int) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": heads,
    }


def _reject_unknown_keys(settings: Mapping[str, Any], keys: set[str]) -> None:
    unknown = sorted(set(settings) - keys)
    if unknown:
        raise _make_unsupported_error(", ".join(unknown))


def _make_unsupported_error(what: str) -> UserError:
    return UserError(f"This CLIP has {what}, which transformers' does not know; install open-clip-torch to use it.")
