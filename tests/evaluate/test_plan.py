from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgepress.errors import UserError
from edgepress.evaluate.plan import plan_for, sampling_of
from edgepress.prompts import Prompt, save_prompts
from edgepress.recipe import Pictures, Recipe
from edgepress.sampling import Sampling

RECIPE = Recipe(device="orin", evaluation=Pictures(count=2, steps=3, guidance=1.5))


@pytest.fixture
def file(prompts: tuple[Prompt, ...], tmp_path: Path) -> Path:
    save_prompts(list(prompts), tmp_path / "set.jsonl")
    return tmp_path / "set.jsonl"


def test_the_recipe_decides(reference: Path, candidate: Path, file: Path) -> None:
    recipe = RECIPE.model_copy(update={"model": str(reference), "dtype": "bfloat16"})
    plan = plan_for(recipe, candidate=candidate, prompts=file)
    assert (plan.reference, plan.candidate, plan.dtype, plan.seeds) == (reference, candidate, "bfloat16", 1)
    assert plan.sampling == Sampling(height=64, width=64, steps=3, guidance=1.5)
    assert [prompt.id for prompt in plan.prompts] == ["a", "b"]
    assert plan.output == candidate.parent / "evaluation"


def test_options_decide_before_the_recipe(reference: Path, candidate: Path, file: Path, tmp_path: Path) -> None:
    plan = plan_for(
        RECIPE, model=str(reference), candidate=candidate, prompts=file, limit=1, seeds=3, output=tmp_path / "out"
    )
    assert (plan.reference, len(plan.prompts), plan.seeds, plan.output) == (reference, 1, 3, tmp_path / "out")


def test_small_weights_compute_in_float32(reference: Path, candidate: Path, file: Path) -> None:
    assert plan_for(RECIPE, model=str(reference), candidate=candidate, prompts=file).dtype == "float32"


def test_own_prompts_come_with_the_reference(reference: Path, candidate: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reference, folder)
    (folder / "prompts").mkdir()
    save_prompts([Prompt(id="own", prompt="x", language="en")], folder / "prompts" / "evaluation.jsonl")
    plan = plan_for(RECIPE, model=str(folder), candidate=candidate)
    assert [prompt.id for prompt in plan.prompts] == ["own"]


def test_a_recipe_may_name_the_size(reference: Path) -> None:
    sampling = sampling_of(Pictures.model_validate({"size": (32, 48)}), reference)
    assert (sampling.height, sampling.width) == (32, 48)


def test_a_candidate_that_was_not_made_yet(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no pressed pipeline in artifacts/orin/model; run `edgepress quantize`"):
        plan_for(RECIPE, model=str(reference))
