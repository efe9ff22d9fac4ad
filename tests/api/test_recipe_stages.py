"""What a recipe asks of later stages: refused before the pipeline is quantized, for the reason that the stage gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import edgepress
from edgepress.api.recipe_stages import check_recipe
from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.loader import load_recipe, recipe_names

STATIC = {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True, "activations": "static"}
RKNN = {"target": "rk3588", "size": [64, 64]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"export": {"extra_graphs": ["encoder"]}}, r"export\.extra_graphs = \[encoder\]: .* no optional graph"),
        ({"export": {"opset": 99}}, r"export\.opset = 99: .* Choose an opset from 18 to 24"),
        ({"export": {"format": "qdq", "opset": 18}}, r"export\.opset = 18: .* Choose an opset from 21 to 24"),
        ({"export": {"max_prompt_tokens": 30_000}}, r"export\.max_prompt_tokens = 30000: the pipeline reads at most"),
        ({"export": {"precision": "w8a8"}}, r"export\.precision = 'w8a8': no scheme .* dynamic activations\. Quantize"),
        ({"export": {"precision": "w8a8", "format": "qdq"}}, r"export\.activations = 'dynamic': the format qdq"),
        ({"export": {"format": "qdq"}}, r"export\.format = 'qdq': .* zero points, which all schemes have\. Quantize"),
        ({"rknn": RKNN | {"cpu": ["encoder"]}}, r"rknn\.cpu = \[encoder\]: unknown graph 'encoder'\. Choose from: "),
        ({"rknn": RKNN | {"size": [100, 100]}}, r"rknn\.size = \[100, 100\]: Invalid image size"),
        ({"rknn": RKNN | {"precision": "w8a8"}}, r"rknn\.precision = 'w8a8': no scheme of the recipe .* Quantize with"),
        ({"rknn": RKNN | {"precision": "w4a16"}}, r"rknn\.precision = 'w4a16': the NPU of the rk3588"),
        ({"evaluation": {"clip": "none"}}, r"evaluation\.clip = 'none': Invalid --clip 'none'"),
        (
            {"evaluation": {"clip": "local-dir:nowhere"}},
            r"evaluation\.clip = .*: nowhere does not exist",
        ),
    ],
)
def test_a_setting_of_a_later_stage_is_refused_before_any_work(
    changes: dict[str, Any], problem: str, tiny: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"device": "test", "quantize": {"method": "rtn"}} | changes), "utf-8")
    with pytest.raises(UserError, match=rf"^Recipe {recipe}: {problem}"):
        edgepress.quantize(recipe, model=tiny, output=tmp_path / "artifact", ignore_plan=True)
    assert not (tmp_path / "artifact").exists()


def test_a_plan_refuses_what_no_stage_could_do(tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    content = load_recipe("pi5").model_dump(mode="json", exclude_unset=True)
    recipe.write_text(yaml.safe_dump(content | {"export": {"opset": 99}}), "utf-8")
    with pytest.raises(UserError, match=rf"^Recipe {recipe}: export\.opset = 99: .* Choose an opset from 18 to 24"):
        edgepress.plan(recipe, model=tiny)


@pytest.mark.parametrize(
    "changes",
    [
        {"export": {"precision": "w8a8", "activations": "static"}, "rknn": RKNN | {"precision": "w8a8"}},
        {"rknn": RKNN | {"precision": "auto", "cpu": ["text_encoder"]}},
        {"export": {"precision": "fp32", "format": "qdq"}},
    ],
)
def test_what_the_recipe_quantizes_for_is_accepted(changes: dict[str, Any], tiny: Path) -> None:
    schemes = {"method": "rtn", "extra_schemes": {"w8a8": STATIC}}
    check_recipe(edgepress.Recipe.model_validate({"device": "test", "quantize": schemes} | changes), tiny)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_ask_nothing_impossible(name: str) -> None:
    check_recipe(load_recipe(name), DEMO_PIPELINE)
