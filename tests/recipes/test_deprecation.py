"""Recipes of earlier releases: old keys and values are read, with warnings that name the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.recipes import load_error, write_recipe

from edgepress.recipes.deprecation import RENAMED_RECIPES, upgrade_settings
from edgepress.recipes.loader import load_recipe
from edgepress.recipes.schema import QuantizationSettings, Scheme

OLD = """
device: x
quantize:
  steps: [range, gptq, refit]
  scheme: {bits: 4, group_size: 128, zero_point: true}
  also:
    npu: {bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static, keep_above: 0.01}
    plain: {activations: float}
export: {flavour: qdq, floats: fp16, tokens: 64, graphs: [vae_encoder]}
rknn: {tokens: 32}
calibration: {prompts: own}
evaluation: {prompts: own, clip: own}
"""
NEW = """
device: x
quantize:
  steps: [range_search, gptq, scale_refit]
  scheme: {bits: 4, group_size: 128, symmetric: false}
  extra_schemes:
    npu:
      {bits: 8, group_size: channel, symmetric: true, narrow_range: true, activations: static, max_output_error: 0.01}
    plain: {activations: none}
export: {format: qdq, float_dtype: fp16, max_prompt_tokens: 64, extra_graphs: [vae_encoder]}
rknn: {max_prompt_tokens: 32}
calibration: {prompts: auto}
evaluation: {prompts: auto, clip: auto}
"""
DEPRECATED = {
    "quantize.steps: [range, gptq, refit]": "quantize.steps: [range_search, gptq, scale_refit]",
    "quantize.scheme.zero_point: true": "quantize.scheme.symmetric: false",
    "quantize.also": "quantize.extra_schemes",
    "quantize.extra_schemes.npu.zero_point: false": "quantize.extra_schemes.npu.symmetric: true",
    "quantize.extra_schemes.npu.narrow": "quantize.extra_schemes.npu.narrow_range",
    "quantize.extra_schemes.npu.keep_above": "quantize.extra_schemes.npu.max_output_error",
    "quantize.extra_schemes.plain.activations: float": "quantize.extra_schemes.plain.activations: none",
    "export.flavour": "export.format",
    "export.floats": "export.float_dtype",
    "export.tokens": "export.max_prompt_tokens",
    "export.graphs": "export.extra_graphs",
    "rknn.tokens": "rknn.max_prompt_tokens",
    "calibration.prompts: own": "calibration.prompts: auto",
    "evaluation.prompts: own": "evaluation.prompts: auto",
    "evaluation.clip: own": "evaluation.clip: auto",
}


def test_old_keys_and_values_are_read_with_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe(write_recipe(tmp_path, OLD))
    path = tmp_path / "mine.yaml"
    assert [record.getMessage() for record in caplog.records] == [
        f"Recipe {path}: '{old}' is deprecated; write '{new}' instead." for old, new in DEPRECATED.items()
    ]
    assert {(record.name, record.levelname) for record in caplog.records} == {("edgepress", "WARNING")}
    caplog.clear()
    assert recipe == load_recipe(write_recipe(tmp_path, NEW))
    assert caplog.records == []


def test_settings_can_be_upgraded_before_they_are_valid() -> None:
    reports: dict[str, str] = {}
    content = {"also": {"npu": {"zero_point": "maybe", "narrow": 3}, "x": 4}, "scheme": None, 1: "steps"}
    upgraded = upgrade_settings(content, QuantizationSettings, reports.__setitem__)
    assert upgraded == {
        "extra_schemes": {"npu": {"symmetric": "maybe", "narrow_range": 3}, "x": 4},
        "scheme": None,
        1: "steps",
    }
    assert reports["extra_schemes.npu.narrow"] == "extra_schemes.npu.narrow_range"


@pytest.mark.parametrize("content", [{"zero_point": False}, {"symmetric": True}])
def test_stored_schemes_of_both_releases_are_read(content: dict[str, Any]) -> None:
    assert Scheme.model_validate(content) == Scheme(symmetric=True)


def test_an_old_key_beside_its_new_one_is_rejected(tmp_path: Path) -> None:
    message = load_error(tmp_path, "device: x\nexport: {flavour: qdq, format: ort}")
    assert "flavour is the old name of format; give only one of them" in message


def test_an_old_key_with_an_invalid_value_is_rejected_under_its_new_name(tmp_path: Path) -> None:
    assert "quantize.scheme.symmetric = 'maybe'" in load_error(
        tmp_path, "device: x\nquantize: {scheme: {zero_point: maybe}}"
    )


@pytest.mark.parametrize(("old", "device", "model"), [(old, *new) for old, new in RENAMED_RECIPES.items()])
def test_an_old_recipe_is_the_new_one_with_its_model_and_the_folder_that_users_have(
    old: str, device: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(old)
    assert (recipe.device, recipe.model) == (old, model)
    assert recipe.model_copy(update={"device": device, "model": "demo"}) == load_recipe(device)
    assert [record.getMessage() for record in caplog.records] == [
        f"The recipe {old} is deprecated and will be removed in the next release. Use {device} with the model {model} "
        "instead."
    ]
