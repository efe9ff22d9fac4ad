from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.evaluator import run_evaluation
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.plan import EvaluationPlan
from edgepress.evaluate.results.schema import Results, load_results
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt

METRICS = ("psnr", "ssim", "text")


@pytest.fixture(scope="module")
def plan(
    reference: Path, candidate: Path, prompts: tuple[Prompt, ...], tmp_path_factory: pytest.TempPathFactory
) -> EvaluationPlan:
    """All runs share one cache."""
    folder = tmp_path_factory.mktemp("run")
    return EvaluationPlan(
        reference=ImageSource("diffusers", reference),
        candidates={"coarse": ImageSource("diffusers", candidate)},
        prompts=prompts,
        sampling=SamplingParams(height=64, width=64, steps=2, guidance=0.0),
        dtype="float32",
        output=folder / "evaluation",
        image_cache=folder / "pictures",
        metrics=METRICS,
    )


def without_times(results: Results) -> Results:
    return results.model_copy(update={"created": "", "seconds": {}, "costs": {}})


def test_two_pipelines_are_compared(plan: EvaluationPlan) -> None:
    stages: list[str] = []
    results = run_evaluation(plan, lambda stage, done, total: stages.append(stage) if done == total else None)
    assert list(dict.fromkeys(stages)) == [
        "reading the reference",
        "reading coarse",
        "painting with the reference",
        "painting with coarse",
        "measuring",
    ]
    assert load_results(plan.output / "results.json") == results
    assert [row.prompt for row in results.samples] == list(plan.prompts)
    assert (results.verdict, results.variants["coarse"].num_identical) == (None, 0)
    for row in results.samples:
        made = row.variants["coarse"]
        assert row.reference
        assert made.image
        one, other = (load_image(plan.image_cache / side.file).astype(float) for side in (row.reference, made.image))
        assert made.values["psnr"] == pytest.approx(10 * np.log10(255**2 / ((one - other) ** 2).mean()))
    assert results.samples[2].reference
    assert results.samples[2].reference.values["text_accuracy"] is None
    assert results.variants["coarse"].groups[0].image_scores["text_accuracy"].drop.count == 2


def test_a_second_run_makes_and_measures_nothing(plan: EvaluationPlan) -> None:
    first = run_evaluation(plan)
    made = {file: file.stat().st_mtime_ns for file in plan.image_cache.rglob("*.png")}
    second = run_evaluation(replace(plan, output=plan.output.with_name("again")))
    assert without_times(second) == without_times(first)
    assert {file: file.stat().st_mtime_ns for file in plan.image_cache.rglob("*.png")} == made
    assert sum(cost.computed for cost in second.metric_costs.values()) == 0
    assert second.metric_costs["text"].cached == 6


def test_the_reference_is_read_once_for_all_candidates(plan: EvaluationPlan) -> None:
    """A pipeline and its copy under another name, beside the coarse one: the same pictures, measured once."""
    copies = {"coarse": plan.candidates["coarse"], "twin": plan.candidates["coarse"], "same": plan.reference}
    results = run_evaluation(replace(plan, candidates=copies, cache=plan.image_cache, resume=False))
    assert results.metric_costs["text"].computed == 6
    assert results.variants["twin"] == results.variants["coarse"]
    assert results.variants["same"].num_identical == 3
    assert "psnr" not in results.variants["same"].groups[0].pair_scores
    assert results.variants["same"].groups[0].pair_scores["ssim"].mean.mean == 1


def test_the_noise_floor_is_the_reference_run_again(plan: EvaluationPlan) -> None:
    results = run_evaluation(replace(plan, noise_floor=True))
    assert results.noise_floor
    assert results.noise_floor.num_identical == results.noise_floor.num_pairs == 3
    for row in results.samples:
        assert row.noise_floor
        assert row.noise_floor.image
        assert row.reference
        assert row.noise_floor.image.file != row.reference.file


def test_true_pictures_are_what_quality_is_measured_against(plan: EvaluationPlan, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prompt in plan.prompts:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{prompt.id}.png")
    results = run_evaluation(replace(plan, truth=tmp_path, gates={"psnr_drop": 3, "ssim_drop": "200%"}))
    found = results.variants["coarse"].groups[0].image_scores["truth_psnr"]
    for row in results.samples:
        assert row.reference
        truth, painted = (
            load_image(tmp_path / f"{row.prompt.id}.png"),
            load_image(plan.image_cache / row.reference.file),
        )
        error = ((truth.astype(float) - painted) ** 2).mean()
        assert row.reference.values["truth_psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    assert found.drop.mean == pytest.approx(found.reference.mean - found.variant.mean)
    assert {gate.name: gate.verdict for gate in results.gates} == {
        "defects_max": "passed",
        "psnr_drop": "inconclusive",  # three prompts are too few for either
        "ssim_drop": "inconclusive",
    }
    assert results.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("names", "size", "sentence"),
    [
        (("a", "b"), 64, "lacks the true pictures of 1 prompts .c.; a picture is called by its prompt's id"),
        (("a", "b", "c"), 32, "true picture .*a.png is 32x32, and what is painted 64x64"),
    ],
)
def test_true_pictures_that_do_not_fit_are_refused(
    names: tuple[str, ...], size: int, sentence: str, plan: EvaluationPlan, tmp_path: Path
) -> None:
    for name in names:
        Image.new("RGB", (size, size)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=sentence):
        run_evaluation(replace(plan, truth=tmp_path))


def test_a_true_picture_that_cannot_be_read_is_refused(plan: EvaluationPlan, tmp_path: Path) -> None:
    for prompt in plan.prompts:
        (tmp_path / f"{prompt.id}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"true picture .*a\.png cannot be read"):
        run_evaluation(replace(plan, truth=tmp_path))


def test_a_damaged_cache_is_named(plan: EvaluationPlan) -> None:
    results = run_evaluation(plan)
    assert results.samples[0].reference
    file = plan.image_cache / results.samples[0].reference.file
    content = file.read_bytes()
    file.write_bytes(content[:40])
    try:
        with pytest.raises(UserError, match=r"0\.png is no readable picture; delete it and run again"):
            run_evaluation(plan)
    finally:
        file.write_bytes(content)


def test_gates_are_looked_up_before_anything_is_painted(plan: EvaluationPlan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no gate 'psnr_mim'"):
        run_evaluation(replace(plan, gates={"psnr_mim": 30}, cache=tmp_path / "pictures"))
    assert not (tmp_path / "pictures").exists()


def test_comparing_nothing_is_an_error(plan: EvaluationPlan) -> None:
    for nothing in (replace(plan, prompts=()), replace(plan, seeds=0), replace(plan, candidates={})):
        with pytest.raises(UserError, match="nothing to compare"):
            run_evaluation(nothing)
