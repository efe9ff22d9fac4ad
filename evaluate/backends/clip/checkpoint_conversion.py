"""Converts open_clip configurations and weights for transformers' CLIPModel.

Both libraries know CLIP's own architectures: a vision transformer that is read at its class token, and a causal text
transformer that is read at its last token. They differ in tensor names and in the orientation of the projections, and
open_clip stores query, key and value as one matrix.
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
# open_clip's defaults for keys that its configuration omits (open_clip 3.3.0, model.py and transform.py).
VISION_DEFAULTS = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT_DEFAULTS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
ARGMAX_EOS_TOKEN_ID = 2  # makes transformers read the text feature at the largest token id, as open_clip does

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


def convert_model_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Converts open_clip's `model_cfg` to keyword arguments of transformers' CLIPConfig.

    Raises:
        UserError: Only open_clip supports the architecture.
    """
    vision, text = model_cfg.get("vision_cfg", {}), model_cfg.get("text_cfg", {})
    _reject_unknown_keys(model_cfg, MODEL_KEYS)
    _reject_unknown_keys(vision, VISION_KEYS)
    _reject_unknown_keys(text, TEXT_KEYS)
    vision, text = VISION_DEFAULTS | vision, TEXT_DEFAULTS | text
    if not isinstance(vision["layers"], int):
        raise _make_unsupported_error("a convolutional image encoder")
    shared = {
        "projection_dim": model_cfg["embed_dim"],
        "hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
    }
    vision_config = {"image_size": vision["image_size"], "patch_size": vision["patch_size"]}
    text_config = {
        "max_position_embeddings": text["context_length"],
        "vocab_size": text["vocab_size"],
        "eos_token_id": ARGMAX_EOS_TOKEN_ID,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    return {
        "projection_dim": model_cfg["embed_dim"],
        "vision_config": shared | _convert_sizes(vision, vision["width"] // vision["head_width"]) | vision_config,
        "text_config": shared | _convert_sizes(text, text["heads"]) | text_config,
    }


def convert_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts open_clip's state dict to that of transformers' CLIPModel.

    Raises:
        UserError: A tensor does not belong to CLIP's own architectures.
    """
    return dict(pair for key, tensor in weights.items() for pair in _convert_tensor(key, tensor))


def _convert_tensor(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    block = BLOCK_PATTERN.fullmatch(key)
    if block:
        encoder = "vision_model" if block[1] else "text_model"
        yield from _convert_block_tensor(f"{encoder}.encoder.layers.{block[2]}.", block[3], tensor)
        return
    stem, name = _match_name(key, TENSOR_NAMES)
    yield name + key.removeprefix(stem), tensor.T.contiguous() if stem in TRANSPOSED else tensor


def _convert_block_tensor(prefix: str, key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if key.startswith("attn.in_proj_"):
        kind = key.removeprefix("attn.in_proj_")  # weight or bias
        for letter, chunk in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{prefix}self_attn.{letter}_proj.{kind}", chunk.contiguous()
        return
    stem, name = _match_name(key, BLOCK_TENSOR_NAMES)
    yield prefix + name + key.removeprefix(stem), tensor


def _match_name(key: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Returns the beginning of a key that has another name in transformers, and that name."""
    for stem, name in names.items():
        if key == stem or key.startswith(f"{stem}."):
            return stem, name
    raise _make_unsupported_error(f"the tensor {key}")


def _convert_sizes(encoder: Mapping[str, Any], num_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": encoder["width"],
        "intermediate_size": int(encoder["width"] * encoder["mlp_ratio"]),
        "num_hidden_layers": encoder["layers"],
        "num_attention_heads": num_heads,
    }


def _reject_unknown_keys(config: Mapping[str, Any], keys: set[str]) -> None:
    unknown = sorted(set(config) - keys)
    if unknown:
        raise _make_unsupported_error(", ".join(unknown))


def _make_unsupported_error(feature: str) -> UserError:
    return UserError(
        f"This CLIP model has {feature}, which transformers does not support. To use it, install open-clip-torch."
    )
