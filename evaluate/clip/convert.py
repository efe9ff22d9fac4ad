"""open_clip's configuration and weights as transformers' CLIPModel has them, for the architectures that both know.

These are CLIP's own: a vision transformer read at its class token and a causal text transformer read at its last token.
The two differ in names, in the projections' direction, and in that open_clip keeps query, key and value as one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MODEL_KEYS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
VISION_KEYS = {"image_size", "patch_size", "layers", "width", "head_width", "mlp_ratio"}
TEXT_KEYS = {"context_length", "vocab_size", "hf_tokenizer_name", "width", "heads", "layers", "mlp_ratio"}
PREPROCESS_KEYS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
# open_clip's defaults, where its configuration leaves a key out (open_clip 3.3.0, model.py and transform.py).
VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {"bilinear": 2, "bicubic": 3}  # as Pillow numbers them

NAMES = {
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
PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TURNED = {"visual.proj", "text_projection"}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def model_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CLIPConfig's keys for open_clip's `model_cfg`.

    Raises:
        UserError: an architecture that only open_clip knows.
    """
    vision, text = settings.get("vision_cfg", {}), settings.get("text_cfg", {})
    _known(settings, MODEL_KEYS)
    _known(vision, VISION_KEYS)
    _known(text, TEXT_KEYS)
    vision, text = VISION | vision, TEXT | text
    if not isinstance(vision["layers"], int):
        raise _needs_open_clip("convolutional towers")
    common = {
        "projection_dim": settings["embed_dim"],
        "hidden_act": "quick_gelu" if settings.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
    }
    return {
        "projection_dim": settings["embed_dim"],
        "vision_config": common
        | _sizes(vision, heads=vision["width"] // vision["head_width"])
        | {"image_size": vision["image_size"], "patch_size": vision["patch_size"]},
        "text_config": common
        | _sizes(text, heads=text["heads"])
        | {"max_position_embeddings": text["context_length"], "vocab_size": text["vocab_size"]}
        | {
            "eos_token_id": 2,
            "bos_token_id": None,
            "pad_token_id": None,
        },  # 2: the feature at the largest token is taken
    }


def processor_config(settings: Mapping[str, Any], side: int) -> dict[str, Any]:
    """CLIPImageProcessor's keys for open_clip's `preprocess_cfg` and a tower of so many pixels a side.

    Raises:
        UserError: a way of resizing that only open_clip knows.
    """
    _known(settings, PREPROCESS_KEYS)
    how = settings.get("resize_mode", "shortest")
    if how not in ("shortest", "squash"):
        raise _needs_open_clip(f"resize_mode: {how}")
    filtering = settings.get("interpolation", "bicubic")
    if filtering not in RESAMPLING:
        raise _needs_open_clip(f"interpolation: {filtering}")
    square = {"height": side, "width": side}
    return {
        "size": {"shortest_edge": side} if how == "shortest" else square,
        "crop_size": square,
        "do_center_crop": how == "shortest",
        "resample": RESAMPLING[filtering],
        "image_mean": list(settings.get("mean", MEAN)),
        "image_std": list(settings.get("std", STD)),
    }


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under transformers' names.

    Raises:
        UserError: a tensor that CLIP's own architecture does not have.
    """
    return {name: tensor for key, value in weights.items() for name, tensor in _renamed(key, value)}


def _renamed(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    block = BLOCK.fullmatch(key)
    if block:
        tower = "vision_model" if block[1] else "text_model"
        yield from _of_block(f"{tower}.encoder.layers.{block[2]}.", block[3], value)
        return
    stem, name = _split(key, NAMES)
    yield name + key.removeprefix(stem), value.T.contiguous() if stem in TURNED else value


def _of_block(prefix: str, key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if key.startswith("attn.in_proj_"):
        kind = key.removeprefix("attn.in_proj_")
        for part, tensor in zip("qkv", value.chunk(3), strict=True):
            yield f"{prefix}self_attn.{part}_proj.{kind}", tensor.contiguous()
        return
    stem, name = _split(key, PARTS)
    yield prefix + name + key.removeprefix(stem), value


def _split(key: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The part of a key that has another name, and that name."""
    for stem, name in names.items():
        if key == stem or key.startswith(f"{stem}."):
            return stem, name
    raise _needs_open_clip(f"the tensor {key}")


def _sizes(tower: Mapping[str, Any], heads: int) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": heads,
    }


def _known(settings: Mapping[str, Any], keys: set[str]) -> None:
    unknown = sorted(set(settings) - keys)
    if unknown:
        raise _needs_open_clip(", ".join(unknown))


def _needs_open_clip(what: str) -> UserError:
    return UserError(f"This CLIP has {what}, which transformers' does not know; install open-clip-torch to use it.")
