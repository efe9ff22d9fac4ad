"""Conversion of open_clip's checkpoints, against the names and shapes of transformers' own CLIPModel."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip.checkpoint_conversion import (
    convert_model_config,
    convert_state_dict,
)

CONFIG: dict[str, Any] = {
    "embed_dim": 6,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 2, "width": 16, "head_width": 4},
    "text_cfg": {"context_length": 5, "vocab_size": 9, "layers": 1, "width": 12, "heads": 3},
}


def make_open_clip_weights() -> dict[str, torch.Tensor]:
    """The tensors of open_clip's CLIP with `CONFIG`, as its source names them."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (5, 12),
        "text_projection": (12, 6),
        "logit_scale": (),
        "token_embedding.weight": (9, 12),
        "visual.class_embedding": (16,),
        "visual.positional_embedding": (5, 16),
        "visual.proj": (16, 6),
        "visual.conv1.weight": (16, 3, 4, 4),
    }
    for norm, width in {"ln_final": 12, "visual.ln_pre": 16, "visual.ln_post": 16}.items():
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    blocks = {"visual.transformer.resblocks.0.": 16, "visual.transformer.resblocks.1.": 16}
    for prefix, width in (blocks | {"transformer.resblocks.0.": 12}).items():
        linears = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
        shapes |= {f"{prefix}attn.in_proj_weight": (3 * width, width), f"{prefix}attn.in_proj_bias": (3 * width,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_every_tensor_of_transformers_is_made_with_its_shape() -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**convert_model_config(CONFIG)))
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted = convert_state_dict(make_open_clip_weights())
    assert {name: tensor.shape for name, tensor in converted.items()} == expected


def test_query_key_and_value_are_the_thirds_of_one_matrix() -> None:
    weights = make_open_clip_weights()
    layer = "text_model.encoder.layers.0.self_attn."
    converted = convert_state_dict(weights)
    for kind in ("weight", "bias"):
        parts = [converted[f"{layer}{letter}_proj.{kind}"] for letter in "qkv"]
        assert torch.equal(torch.cat(parts), weights[f"transformer.resblocks.0.attn.in_proj_{kind}"])
    assert torch.equal(converted["text_projection.weight"], weights["text_projection"].T)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("vision_cfg", "timm_model_name", "convnext"),
        ("vision_cfg", "layers", [3, 4, 6, 3]),
        ("text_cfg", "no_causal_mask", True),
        ("", "multimodal_cfg", {}),
    ],
)
def test_architectures_that_only_open_clip_knows_are_refused(section: str, key: str, value: Any) -> None:
    config = copy.deepcopy(CONFIG)
    (config[section] if section else config)[key] = value
    with pytest.raises(UserError, match=r"transformers does not support.*install open-clip-torch"):
        convert_model_config(config)
    with pytest.raises(UserError, match=r"the tensor visual\.trunk\.stem"):
        convert_state_dict({"visual.trunk.stem": torch.zeros(1)})
