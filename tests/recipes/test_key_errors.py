"""What proves wrong late with a recipe's value is said with its key and the recipe's name, unless it was replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgepress
from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.key_errors import RecipeValueError, checking_key, naming_recipe
from edgepress.recipes.schema import Recipe


@pytest.mark.parametrize(
    ("value", "message"),
    [("mine", "Recipe my.yaml: evaluation.clip = 'mine': not there"), ("given", "not there")],
)
def test_a_value_has_its_key_if_it_is_the_recipes(value: str, message: str) -> None:
    recipe = Recipe(device="d", evaluation={"clip": "mine"})
    with pytest.raises(UserError) as raised, naming_recipe("my.yaml", recipe), checking_key("evaluation.clip", value):
        raise UserError("not there")
    assert str(raised.value) == message


def test_the_innermost_key_counts_and_a_loaded_recipe_has_a_device() -> None:
    recipe = Recipe(device="d")
    with (
        pytest.raises(UserError, match=r"^The recipe for d: calibration\.steps = 8: many$"),
        naming_recipe(recipe, recipe),
        checking_key("calibration", "x"),
    ):
        raise RecipeValueError("calibration.steps", 8, "many")


SIZE = r"Invalid image size 100x100: height and width must be positive multiples of 16\."
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    rf"calibration\.size = \[100, 100\]: {SIZE}": ("quantize", {"calibration": {"size": [100, 100]}}),
    rf"evaluation\.size = \[100, 100\]: {SIZE}": ("quantize", {"evaluation": {"size": [100, 100]}}),
    rf"export\.sizes = .*: {SIZE}": ("export", {"export": {"sizes": [[100, 100]], "precision": "fp32"}}),
    rf"presets\.fast\.size = \[100, 100\]: {SIZE}": ("quantize", {"presets": {"fast": {"size": [100, 100]}}}),
    rf"presets\.quality\.size = \[100, 100\]: {SIZE}": (
        "export", {"presets": {"quality": {"size": [100, 100]}}, "export": {"precision": "fp32"}}
    ),
    r"quantize\.components = \[vea\]: .*no component 'vea'": ("quantize", {"quantize": {"components": ["vea"]}}),
    r"quantize\.budget = '1bpw': 1 bits": ("quantize", {"quantize": {"budget": "1bpw", "method": "rtn"}}),
    r"calibration\.prompts = 'absent': There is no prompt set": ("quantize", {"calibration": {"prompts": "absent"}}),
    r"evaluation\.prompts = 'absent': There is no prompt set": ("quantize", {"evaluation": {"prompts": "absent"}}),
    r"loras = \[a\.safetensors\]: There is no LoRA": ("quantize", {"loras": ["a.safetensors"]}),
    r"export\.opset = 5: Opset 5 does not": ("export", {"export": {"opset": 5, "precision": "fp32"}}),
    r"export\.extra_graphs = \[b\]: .*no optional graph 'b'": ("export", {"export": {"extra_graphs": ["b"]}}),
    r"export\.max_prompt_tokens = 30000: the pipeline reads at most": (
        "export", {"export": {"max_prompt_tokens": 30000, "precision": "fp32"}}
    ),
    rf"rknn\.size = \[100, 100\]: {SIZE}": ("plan_rknn", {"rknn": {"target": "rk3588", "size": [100, 100]}}),
    rf"evaluation\.size = \[100, 100\]: {SIZE} ?": ("evaluate", {"evaluation": {"size": [100, 100]}}),
    r"export\.precision = 'int4': .* has no INT4 weights\. Quantize it": ("export", {"export": {"precision": "int4"}}),
    r"evaluation\.clip = 'absent': Invalid": ("evaluate", {"evaluation": {"clip": "absent"}}),
}  # fmt: skip


@pytest.mark.parametrize("message", RECIPES)
def test_late_checks_name_the_recipe_and_the_key(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage, settings = RECIPES[message]
    stages: dict[str, Callable[[Recipe], object]] = {
        "quantize": lambda recipe: edgepress.quantize(recipe, model=DEMO_PIPELINE, output="out"),
        "export": lambda recipe: edgepress.export_onnx(recipe, model=DEMO_PIPELINE, output="out"),
        "plan_rknn": lambda recipe: edgepress.plan_rknn(recipe, model=DEMO_PIPELINE),
        "evaluate": lambda recipe: edgepress.evaluate(recipe, model=DEMO_PIPELINE, candidates=[DEMO_PIPELINE]),
    }
    with pytest.raises(UserError, match=f"^The recipe for mine: {message}"):
        stages[stage](Recipe(device="mine", **settings))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [edgepress.quantize, edgepress.plan, edgepress.export_rknn, edgepress.plan_rknn])
def test_a_model_that_does_not_exist_is_the_recipe_s(
    stage: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^The recipe for mine: model = './absent': "):
        stage(Recipe(device="mine", model="./absent", rknn={"target": "rk3588"}))
    with pytest.raises(UserError, match=r"^[^:]*gone"):
        stage(Recipe(device="mine", rknn={"target": "rk3588"}), model="./gone")
