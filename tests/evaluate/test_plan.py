from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.plan import EvaluationOptions, plan_evaluation, plan_image_pairs
from edgepress.pipelines.sampling import SamplingParams, resolve_sampling
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.recipes.schema import EvaluationSettings, Recipe

RECIPE = Recipe(device="orin", evaluation=EvaluationSettings(count=2, steps=3, guidance=1.5, gates={"psnr_min": 30}))


@pytest.fixture
def file(prompts: tuple[Prompt, ...], tmp_path: Path) -> str:
    save_prompts(list(prompts), tmp_path / "set.jsonl")
    return str(tmp_path / "set.jsonl")


@pytest.fixture
def options(reference: Path, candidate: Path, file: str) -> EvaluationOptions:
    return EvaluationOptions(model=str(reference), candidates=(str(candidate),), prompts=file)


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    return folder


def test_the_recipe_decides(reference: Path, candidate: Path, file: str) -> None:
    recipe = RECIPE.model_copy(update={"model": str(reference), "dtype": "bfloat16"})
    plan = plan_evaluation(recipe, EvaluationOptions(candidates=(str(candidate),), prompts=file))
    assert (plan.reference.folder, plan.dtype, plan.seeds) == (reference, "bfloat16", 1)
    assert plan.candidates == {"candidate-model": ImageSource("diffusers", candidate)}
    assert plan.sampling == SamplingParams(height=64, width=64, steps=3, guidance=1.5)
    assert [prompt.id for prompt in plan.prompts] == ["a", "b"]
    assert plan.output == candidate.parent / "evaluation"
    assert (plan.gates, plan.noise_floor, plan.device) == ({"psnr_min": 30}, False, "orin")


def test_options_decide_before_the_recipe(options: EvaluationOptions, reference: Path, tmp_path: Path) -> None:
    asked = replace(options, limit=1, seeds=3, output=tmp_path / "out", gates=False, noise_floor=True, clip="x")
    plan = plan_evaluation(RECIPE, asked)
    assert (plan.reference.folder, len(plan.prompts), plan.seeds, plan.output) == (reference, 1, 3, tmp_path / "out")
    assert (plan.gates, plan.noise_floor, plan.metric_settings.clip) == ({}, True, "x")


def test_small_weights_compute_in_float32(options: EvaluationOptions) -> None:
    assert plan_evaluation(RECIPE, options).dtype == "float32"


def test_a_shipped_set_goes_by_its_name(options: EvaluationOptions) -> None:
    plan = plan_evaluation(RECIPE, replace(options, prompts="smoke"))
    assert plan.prompt_set == "smoke"
    assert plan.prompts[0].id == "smoke-01"
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        plan_evaluation(RECIPE, replace(options, prompts="smok"))


def test_own_prompts_come_with_the_reference(options: EvaluationOptions, reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reference, folder)
    (folder / "prompts").mkdir()
    save_prompts([Prompt(id="own", prompt="x", language="en")], folder / "prompts" / "evaluation.jsonl")
    plan = plan_evaluation(RECIPE, replace(options, model=str(folder), prompts=None))
    assert [prompt.id for prompt in plan.prompts] == ["own"]


def test_a_recipe_may_name_the_size(reference: Path) -> None:
    sampling = resolve_sampling(EvaluationSettings.model_validate({"size": (32, 48)}), reference)
    assert (sampling.height, sampling.width) == (32, 48)


def test_what_paints_one_size_alone_is_refused_another(options: EvaluationOptions, tmp_path: Path) -> None:
    """Before the reference paints for hours."""
    parts = tmp_path / "board" / "rknn"
    parts.mkdir(parents=True)
    said = {"schema_version": 1, "family": "x", "target": "rk3588", "toolkit": "2", "tokens": 32, "host": {}}
    (parts / "pipeline.json").write_text(json.dumps(said | {"graphs": {}, "size": [64, 64]}))
    asked = replace(options, candidates=(str(parts),))
    assert plan_evaluation(RECIPE, asked).candidates["board-rknn"].kind == "rknn"  # the pipeline's own size
    other = Recipe(device="orin", evaluation=EvaluationSettings(size=(32, 48)))
    with pytest.raises(UserError, match=r"paints pictures of 64x64 alone, not of 32x48; set evaluation\.size"):
        plan_evaluation(other, asked)


def test_pictures_made_elsewhere_may_stand_for_either_side(options: EvaluationOptions, tmp_path: Path) -> None:
    made = pictures(tmp_path / "made", "a", "b")
    assert plan_evaluation(RECIPE, replace(options, candidates=(f"board={made}",))).candidates["board"].kind == "images"
    plan = plan_evaluation(RECIPE, replace(options, model=str(made), noise_floor=True))
    assert (plan.reference.kind, plan.noise_floor) == ("images", False)  # pictures cannot be run again
    both = plan_evaluation(RECIPE, replace(options, model=str(made), candidates=(f"board={made}",)))
    assert both.sampling is None
    assert (len(both.prompts), both.prompt_subset) == (3, None)  # the whole set, whatever the recipe paints
    assert plan.prompt_subset
    assert (len(plan.prompts), plan.prompt_subset.total, plan.prompt_subset.limited_by) == (2, 3, "evaluation.count")
    seeds = pictures(tmp_path / "seeds", "a-0", "a-1", "a-2")
    with pytest.raises(UserError, match=r"1 pictures of .*seeds are no prompt's of .* \(a-2\); .* with its seed"):
        plan_evaluation(RECIPE, replace(options, candidates=(str(seeds),), seeds=2))


def test_a_candidate_that_was_not_made_yet(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no pressed pipeline in artifacts/orin/model, nor .*run `edgepress quantize`"):
        plan_evaluation(RECIPE, EvaluationOptions(model=str(reference)))


def test_true_pictures_are_a_folder_of_pictures(options: EvaluationOptions, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="no true pictures in"):
            plan_evaluation(RECIPE, replace(options, truth=folder))


# ---------------------------------------------------------------- pairs


def test_pairs_are_all_pictures_of_both_folders(tmp_path: Path) -> None:
    one, other = pictures(tmp_path / "one", "x", "y"), pictures(tmp_path / "other", "y", "z")
    plan = plan_image_pairs(RECIPE, one, other)
    assert [prompt.id for prompt in plan.prompts] == ["x", "y", "z"]
    assert plan.candidates == {"other": ImageSource("images", other)}
    assert (plan.sampling, plan.prompt_set, plan.output) == (None, None, Path("evaluation"))
    assert plan.gates == {"psnr_min": 30}


def test_pairs_with_prompts_are_those_of_the_set(file: str, tmp_path: Path) -> None:
    one, other = pictures(tmp_path / "one", "a", "b"), pictures(tmp_path / "other", "b")
    plan = plan_image_pairs(RECIPE, one, other, EvaluationOptions(prompts=file))
    assert [prompt.id for prompt in plan.prompts] == ["a", "b", "c"]
    assert plan.prompts[0].lines == ("OPEN",)
    pictures(tmp_path / "third", "d", "e")
    with pytest.raises(UserError, match=r"2 pictures of .*third are no prompt's of .*set.jsonl \(d, e\)"):
        plan_image_pairs(RECIPE, one, tmp_path / "third", EvaluationOptions(prompts=file))


def test_pairs_of_nothing_are_refused(tmp_path: Path) -> None:
    one = pictures(tmp_path / "one", "a")
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"There are no pictures in .*; --pairs wants two folders"):
            plan_image_pairs(RECIPE, one, folder)
