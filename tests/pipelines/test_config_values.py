"""Values of another kind than a class takes are refused; what diffusers' own classes declare is accepted."""

from __future__ import annotations

import inspect
import json
from typing import Any

import diffusers
import pytest
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel, ZImageTransformer2DModel

from edgepress.common.errors import UserError
from edgepress.pipelines.component_weights import build_described_module
from edgepress.pipelines.config_values import find_malformed_value
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.storage.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("cls", "key", "value", "requirement"),
    [
        (ZImageTransformer2DModel, "t_scale", "x", "t_scale = 'x': it must be a number"),
        (ZImageTransformer2DModel, "n_kv_heads", "x", "n_kv_heads = 'x': it must be a number"),
        (ZImageTransformer2DModel, "qk_norm", "x", "qk_norm = 'x': it must be true or false"),
        (AutoencoderKL, "sample_size", -1, "sample_size = -1: it must be a positive whole number"),
        (AutoencoderKL, "norm_num_groups", -1, "norm_num_groups = -1: it must be a positive whole number"),
        (AutoencoderKL, "latents_std", "x", "latents_std = 'x': it must be a number"),
        (AutoencoderKL, "force_upcast", 0.5, "force_upcast = 0.5: it must be true or false"),
        (AutoencoderKL, "act_fn", 1, "act_fn = 1: it must be text"),
        (AutoencoderKL, "down_block_types", [1], "down_block_types = [1]: it must be text"),
        (ZImageTransformer2DModel, "norm_eps", [], "norm_eps = []: it must be one value, or a list of some"),
        (AutoencoderKL, "shift_factor", -0.1, ""),
        (AutoencoderKL, "scaling_factor", 1, ""),
        (UNet2DConditionModel, "attention_head_dim", [5, 10], ""),
        (UNet2DConditionModel, "wings", "x", ""),
    ],
)
def test_values_are_compared_with_declarations(cls: Any, key: str, value: Any, requirement: str) -> None:
    assert find_malformed_value(cls, {key: value}) == requirement


def test_defaults_of_all_models_of_diffusers_are_accepted() -> None:
    classes = [getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Model") or "Autoencoder" in name]
    models = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, ModelMixin)]
    assert len(models) > 50
    for cls in models:
        parameters = inspect.signature(cls.__init__).parameters.values()
        defaults = {item.name: item.default for item in parameters if item.default is not item.empty}
        as_json = json.loads(json.dumps(defaults, default=str))
        assert find_malformed_value(cls, as_json) == "", cls


@pytest.mark.parametrize(
    ("component", "key", "value"),
    [("vae", "sample_size", -1), ("transformer", "t_scale", "x"), ("text_encoder", "model_type", {})],
)
def test_they_are_refused_with_their_file(component: str, key: str, value: Any) -> None:
    checkpoint = Checkpoint(DEMO_PIPELINE / component)
    library, class_name = json.loads((DEMO_PIPELINE / "model_index.json").read_text())[component]
    config = checkpoint.load_config() | {key: value}
    with pytest.raises(UserError, match=f"{component}/config.json does not describe an? .*: {key} = .*: it must be"):
        build_described_module(checkpoint, library, class_name, config)
