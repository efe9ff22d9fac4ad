"""What is wrong with the reference, a candidate or a folder is known before anything is generated or hashed."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny import edit_weights

from edgepress.common.errors import UserError
from edgepress.evaluate.checks import check_components, check_plan
from edgepress.evaluate.evaluator import run_evaluation
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.plan import EvaluationPlan
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt

SAMPLING = SamplingParams(height=64, width=64, steps=2, guidance=0.0)


@pytest.fixture
def plan(reference: Path, candidate: Path, prompts: tuple[Prompt, ...], tmp_path: Path) -> EvaluationPlan:
    """The second candidate is a copy that a test may damage."""
    shutil.copytree(candidate, tmp_path / "damaged")
    return EvaluationPlan(
        reference=ImageSource("diffusers", reference),
        candidates={
            "coarse": ImageSource("diffusers", candidate),
            "damaged": ImageSource("diffusers", tmp_path / "damaged"),
        },
        prompts=prompts,
        sampling=SAMPLING,
        dtype="float32",
        output=tmp_path / "out",
        image_cache=tmp_path / "images",
        metrics=("psnr",),
    )


def test_a_complete_plan_passes_in_less_than_two_seconds(plan: EvaluationPlan) -> None:
    begin = time.process_time()  # not of other processes of the machine
    check_plan(plan)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "missing",
    [
        "text_encoder",
        "text_encoder/model.safetensors",
        "tokenizer",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "vae/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ],
)
def test_an_incomplete_candidate_is_found_before_any_work(plan: EvaluationPlan, missing: str) -> None:
    path = plan.candidates["damaged"].folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    stages: list[str] = []
    with pytest.raises(UserError, match=missing.split("/")[0]):
        run_evaluation(plan, lambda stage, *_: stages.append(stage))
    assert stages == []
    assert not plan.image_cache.exists()
    assert not plan.output.exists()


@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_weights_that_a_class_does_not_have_are_found_on_both_sides(plan: EvaluationPlan, side: str) -> None:
    """The library that loads them would ignore them, or make up those that are missing."""
    damaged = plan.candidates["damaged"]
    if side == "reference":
        plan = replace(plan, reference=damaged, candidates={"coarse": plan.candidates["coarse"]})
    with edit_weights(damaged.folder / "transformer") as tensors:
        tensors["layers.0.extra.weight"] = tensors["x_pad_token"].clone()
    with pytest.raises(UserError, match=r"does not have, .*: layers\.0\.extra\.weight\."):
        check_components(plan)
    with edit_weights(damaged.folder / "transformer") as tensors:
        del tensors["layers.0.extra.weight"], tensors["x_pad_token"]
    with pytest.raises(UserError, match=r"'x_pad_token', required by config\.json, is missing"):
        check_components(plan)


def test_an_incomplete_reference_is_found_as_well(plan: EvaluationPlan) -> None:
    damaged = plan.candidates["damaged"]
    shutil.rmtree(damaged.folder / "scheduler")
    with pytest.raises(UserError, match="scheduler"):
        check_plan(replace(plan, reference=damaged, candidates={"coarse": plan.candidates["coarse"]}))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (replace(SAMPLING, height=63), "Invalid image size 63x64"),
        (replace(SAMPLING, height=64_000_000, width=64_000_000), "64000000x64000000"),
    ],
)
def test_images_that_cannot_be_are_refused(plan: EvaluationPlan, sampling: SamplingParams, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_plan(replace(plan, sampling=sampling))


@pytest.mark.parametrize("field", ["output", "image_cache"])
def test_a_folder_that_cannot_be_created_is_refused(plan: EvaluationPlan, field: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        check_plan(replace(plan, **{field: tmp_path / "file" / "folder"}))


def test_an_empty_plan_is_refused(plan: EvaluationPlan) -> None:
    for empty in (replace(plan, prompts=()), replace(plan, seeds=0), replace(plan, candidates={})):
        with pytest.raises(UserError, match="Nothing to compare"):
            check_plan(empty)
