from __future__ import annotations

import json
import os
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
def prompt_set(prompts: tuple[Prompt, ...], tmp_path: Path) -> str:
    save_prompts(list(prompts), tmp_path / "set.jsonl")
    return str(tmp_path / "set.jsonl")


@pytest.fixture
def options(reference: Path, candidate: Path, prompt_set: str) -> EvaluationOptions:
    return EvaluationOptions(model=str(reference), candidates=(str(candidate),), prompts=prompt_set)


def make_images(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    return folder


def test_recipe_provides_the_defaults(reference: Path, candidate: Path, prompt_set: str) -> None:
    recipe = RECIPE.model_copy(update={"model": str(reference), "dtype": "bfloat16"})
    plan = plan_evaluation(recipe, EvaluationOptions(candidates=(str(candidate),), prompts=prompt_set))
    assert (plan.reference.folder, plan.dtype, plan.seeds) == (reference, "bfloat16", 1)
    assert plan.candidates == {"candidate-model": ImageSource("diffusers", candidate)}
    assert plan.sampling == SamplingParams(height=64, width=64, steps=3, guidance=1.5)
    assert [prompt.id for prompt in plan.prompts] == ["a", "b"]
    assert plan.output == candidate.parent / "evaluation"
    assert (plan.gates, plan.noise_floor, plan.device) == ({"psnr_min": 30}, False, "orin")


def test_options_override_the_recipe(options: EvaluationOptions, reference: Path, tmp_path: Path) -> None:
    overridden = replace(options, limit=1, seeds=3, output=tmp_path / "out", gates=False, noise_floor=True, clip="x")
    plan = plan_evaluation(RECIPE, overridden)
    assert (plan.reference.folder, len(plan.prompts), plan.seeds, plan.output) == (reference, 1, 3, tmp_path / "out")
    assert (plan.gates, plan.noise_floor, plan.metric_settings.clip) == ({}, True, "x")


def test_small_pipelines_compute_in_float32(options: EvaluationOptions) -> None:
    assert plan_evaluation(RECIPE, options).dtype == "float32"


def test_shipped_prompt_set_is_found_by_name(options: EvaluationOptions) -> None:
    plan = plan_evaluation(RECIPE, replace(options, prompts="smoke"))
    assert plan.prompt_set == "smoke"
    assert plan.prompts[0].id == "smoke-01"
    with pytest.raises(UserError, match=r"[Dd]id you mean 'smoke'"):
        plan_evaluation(RECIPE, replace(options, prompts="smok"))


def test_prompts_of_the_reference_are_the_default(options: EvaluationOptions, reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reference, folder)
    (folder / "prompts").mkdir()
    save_prompts([Prompt(id="bundled", prompt="x", language="en")], folder / "prompts" / "evaluation.jsonl")
    plan = plan_evaluation(RECIPE, replace(options, model=str(folder), prompts=None))
    assert [prompt.id for prompt in plan.prompts] == ["bundled"]


def test_recipe_may_set_the_image_size(reference: Path) -> None:
    sampling = resolve_sampling(EvaluationSettings.model_validate({"size": (32, 48)}), reference)
    assert (sampling.height, sampling.width) == (32, 48)


def test_export_of_another_image_size_is_refused(options: EvaluationOptions, tmp_path: Path) -> None:
    """Before the reference generates images, which may take hours."""
    folder = tmp_path / "board" / "rknn"
    folder.mkdir(parents=True)
    config = {"schema_version": 1, "family": "x", "target": "rk3588", "toolkit": "2", "tokens": 32, "host": {}}
    (folder / "pipeline.json").write_text(json.dumps(config | {"graphs": {"vae_decoder": []}, "size": [64, 64]}))
    with_export = replace(options, candidates=(str(folder),))
    assert plan_evaluation(RECIPE, with_export).candidates["board-rknn"].kind == "rknn"  # the pipeline's native size
    recipe = Recipe(device="orin", evaluation=EvaluationSettings(size=(32, 48)))
    with pytest.raises(UserError, match=r"supports images of 64x64 only, but 32x48 was requested\. Set evaluation"):
        plan_evaluation(recipe, with_export)


def test_image_folders_may_replace_reference_and_candidates(options: EvaluationOptions, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", "a", "b")
    plan = plan_evaluation(RECIPE, replace(options, candidates=(f"board={folder}",)))
    assert plan.candidates["board"].kind == "images"
    recipe = RECIPE.model_copy(update={"evaluation": RECIPE.evaluation.model_copy(update={"noise_floor": True})})
    plan = plan_evaluation(recipe, replace(options, model=str(folder)))
    assert (plan.reference.kind, plan.noise_floor) == ("images", False)  # images cannot be generated again
    assert plan.prompt_subset
    assert (len(plan.prompts), plan.prompt_subset.total, plan.prompt_subset.limited_by) == (2, 3, "evaluation.count")
    plan = plan_evaluation(RECIPE, replace(options, model=str(folder), candidates=(f"board={folder}",)))
    assert plan.sampling is None
    assert (len(plan.prompts), plan.prompt_subset) == (3, None)  # evaluation.count does not apply


def test_images_that_match_no_prompt_and_seed_are_refused(options: EvaluationOptions, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "seeds", "a-0", "a-1", "a-2")
    with pytest.raises(UserError, match=r"1 images in .*seeds match no prompt in .*: a-2\. .*followed by its seed"):
        plan_evaluation(RECIPE, replace(options, candidates=(str(folder),), seeds=2))


def test_missing_default_candidate_is_reported(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"artifacts/orin/model does not exist\. Run 'edgepress quantize' first"):
        plan_evaluation(RECIPE, EvaluationOptions(model=str(reference)))


def test_ground_truth_must_be_a_folder_of_images(options: EvaluationOptions, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"(does not exist|is an? .*)\. Give --ground-truth a folder"):
            plan_evaluation(RECIPE, replace(options, ground_truth=folder))


# ---------------------------------------------------------------- pairs of images


def test_pairs_cover_all_images_of_both_folders(tmp_path: Path) -> None:
    reference, variant = make_images(tmp_path / "reference", "x", "y"), make_images(tmp_path / "variant", "y", "z")
    plan = plan_image_pairs(RECIPE, reference, variant)
    assert [prompt.id for prompt in plan.prompts] == ["x", "y", "z"]
    assert plan.candidates == {"variant": ImageSource("images", variant)}
    assert (plan.sampling, plan.prompt_set, plan.output) == (None, None, Path("evaluation"))
    assert plan.gates == {"psnr_min": 30}


def test_pairs_with_a_prompt_set_cover_its_prompts(prompt_set: str, tmp_path: Path) -> None:
    reference, variant = make_images(tmp_path / "reference", "a", "b"), make_images(tmp_path / "variant", "b")
    plan = plan_image_pairs(RECIPE, reference, variant, EvaluationOptions(prompts=prompt_set))
    assert [prompt.id for prompt in plan.prompts] == ["a", "b", "c"]
    assert plan.prompts[0].lines == ("OPEN",)
    unknown = make_images(tmp_path / "unknown", "d", "e")
    with pytest.raises(UserError, match=r"2 images in .*unknown match no prompt in .*set.jsonl: d, e\."):
        plan_image_pairs(RECIPE, reference, unknown, EvaluationOptions(prompts=prompt_set))


def test_pairs_require_images(tmp_path: Path) -> None:
    reference = make_images(tmp_path / "reference", "a")
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"(does not exist|is an? .*)\. Give --pairs two folders"):
            plan_image_pairs(RECIPE, reference, folder)


def test_absurdly_many_images_are_refused(options: EvaluationOptions) -> None:
    with pytest.raises(UserError, match=r"--seeds 100000000 are too many images of a prompt\. Choose at most 1000"):
        plan_evaluation(RECIPE, replace(options, seeds=10**8))


def test_a_noise_floor_needs_a_reference_that_generates(tmp_path: Path) -> None:
    reference, variant = make_images(tmp_path / "reference", "a"), make_images(tmp_path / "variant", "a")
    with pytest.raises(UserError, match=r"--noise-floor generates .*reference holds images\. Leave it out"):
        plan_image_pairs(RECIPE, reference, variant, EvaluationOptions(noise_floor=True))
    assert not plan_image_pairs(RECIPE, reference, variant, EvaluationOptions(noise_floor=None)).noise_floor


@pytest.mark.parametrize("at", ["reference", "output", "working folder"])
def test_full_paths_that_are_not_utf8_are_refused(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, odd = tmp_path / "plain", tmp_path / os.fsdecode(b"D\xe9")
    for folder in (plain, odd):
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    monkeypatch.chdir(odd if at == "working folder" else plain)
    reference, output = odd if at == "reference" else plain, odd if at == "output" else tmp_path
    with pytest.raises(UserError, match=r"D\\xe9.*' is not UTF-8\. Rename"):
        plan_image_pairs(RECIPE, reference, plain, EvaluationOptions(output=output))
