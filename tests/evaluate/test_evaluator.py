from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.api.cleaning import clean
from edgepress.common.errors import UserError
from edgepress.evaluate.evaluator import describe_unmeasured, run_evaluation
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.plan import EvaluationOptions, EvaluationPlan, plan_image_pairs
from edgepress.evaluate.results.results_file import load_results
from edgepress.evaluate.results.schema import Results
from edgepress.pipelines.preflight import TRIAL_PROMPT
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt
from edgepress.recipes.schema import Recipe

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
        image_cache=folder / "images",
        metrics=METRICS,
    )


def psnr_by_definition(reference: ImageArray, image: ImageArray) -> float:
    return float(10 * np.log10(255**2 / ((reference.astype(float) - image) ** 2).mean()))


def without_times(results: Results) -> Results:
    times = {"stage_seconds": {}, "metric_costs": {}, "costs": {}, "reference_cost": None}
    return results.model_copy(update={"created": "", **times})


def test_two_pipelines_are_compared(plan: EvaluationPlan) -> None:
    stages: list[str] = []
    results = run_evaluation(plan, lambda stage, done, total: stages.append(stage) if done == total else None)
    assert list(dict.fromkeys(stages)) == [
        "reading the reference",
        "reading coarse",
        "generating images with the reference",
        "generating images with coarse",
        "computing metrics",
    ]
    assert list(results.stage_seconds) == ["reading", "generating", "scoring"]
    assert load_results(plan.output / "results.json") == results
    assert [sample.prompt for sample in results.samples] == list(plan.prompts)
    assert (results.verdict, results.variants["coarse"].num_identical) == (None, 0)
    for sample in results.samples:
        pair = sample.variants["coarse"]
        assert sample.reference
        assert pair.image
        images = [load_image(plan.image_cache / image.file) for image in (sample.reference, pair.image)]
        assert pair.values["psnr"] == pytest.approx(psnr_by_definition(*images))
    assert results.samples[2].reference
    assert results.samples[2].reference.values["text_accuracy"] is None
    assert results.variants["coarse"].groups[0].image_scores["text_accuracy"].drop.count == 2


def test_second_run_generates_and_computes_nothing(plan: EvaluationPlan) -> None:
    first = run_evaluation(plan)
    times = {file: file.stat().st_mtime_ns for file in plan.image_cache.rglob("*.png")}
    second = run_evaluation(replace(plan, output=plan.output.with_name("again")))
    assert without_times(second) == without_times(first)
    assert {file: file.stat().st_mtime_ns for file in plan.image_cache.rglob("*.png")} == times
    assert sum(cost.computed for cost in second.metric_costs.values()) == 0
    assert second.metric_costs["text"].cached == 6


def test_equal_images_are_scored_once(plan: EvaluationPlan) -> None:
    """Two candidates generate equal images, and a third one those of the reference."""
    candidates = {"coarse": plan.candidates["coarse"], "twin": plan.candidates["coarse"], "same": plan.reference}
    results = run_evaluation(replace(plan, candidates=candidates, restart=True))
    assert results.metric_costs["text"].computed == 6
    assert results.variants["twin"] == results.variants["coarse"]
    assert results.variants["same"].num_identical == 3
    assert "psnr" not in results.variants["same"].groups[0].pair_scores
    assert results.variants["same"].groups[0].pair_scores["ssim"].mean.mean == 1


def test_noise_floor_generates_the_reference_twice(plan: EvaluationPlan) -> None:
    results = run_evaluation(replace(plan, noise_floor=True))
    assert results.noise_floor
    assert results.noise_floor.num_identical == results.noise_floor.num_pairs == 3
    for sample in results.samples:
        assert sample.noise_floor
        assert sample.noise_floor.image
        assert sample.reference
        assert sample.noise_floor.image.file != sample.reference.file


def test_results_are_kept_where_the_history_cannot_be_written(
    plan: EvaluationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepress.storage.database.LOCK_TIMEOUT_S", 0.01)
    file = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(file)) as holder:

        def lock(stage: str, done: int, total: int) -> None:
            if (stage, done) == ("computing metrics", total):
                holder.execute("BEGIN IMMEDIATE")

        with pytest.raises(UserError, match="another process keeps it locked"):
            run_evaluation(replace(plan, history=file, output=tmp_path / "evaluation"), lock)
    results = load_results(tmp_path / "evaluation" / "results.json")
    assert (results.history, len(results.samples)) == (None, len(plan.prompts))


# ---------------------------------------------------------------- ground truth


def test_images_are_compared_with_the_ground_truth(plan: EvaluationPlan, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prompt in plan.prompts:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{prompt.id}.png")
    results = run_evaluation(replace(plan, ground_truth=tmp_path, gates={"psnr_drop": 3, "ssim_drop": "200%"}))
    for sample in results.samples:
        assert sample.reference
        images = load_image(tmp_path / f"{sample.prompt.id}.png"), load_image(plan.image_cache / sample.reference.file)
        assert sample.reference.values["truth_psnr"] == pytest.approx(psnr_by_definition(*images))
    summary = results.variants["coarse"].groups[0].image_scores["truth_psnr"]
    assert summary.drop.mean == pytest.approx(summary.reference.mean - summary.variant.mean)
    assert {gate.name: gate.verdict for gate in results.gates} == {
        "defects_max": "passed",
        "psnr_drop": "inconclusive",  # there are too few prompts
        "ssim_drop": "inconclusive",
    }
    assert results.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (("a", "b"), 64, r"lacks the ground-truth images of 1 prompts \(c\)\. Name each image by the id of its prompt"),
        (("a", "b", "c"), 32, r"ground-truth image .*a\.png is 32x32, but the generated image is 64x64"),
    ],
)
def test_unsuitable_ground_truth_is_refused(
    names: tuple[str, ...], size: int, message: str, plan: EvaluationPlan, tmp_path: Path
) -> None:
    for name in names:
        Image.new("RGB", (size, size)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=message):
        run_evaluation(replace(plan, ground_truth=tmp_path))


def test_unreadable_ground_truth_is_refused(plan: EvaluationPlan, tmp_path: Path) -> None:
    for prompt in plan.prompts:
        (tmp_path / f"{prompt.id}.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"ground-truth image .*a\.png is unreadable \(text, no image\)\. Replace it"):
        run_evaluation(replace(plan, ground_truth=tmp_path))


# ---------------------------------------------------------------- errors


def test_corrupt_cached_images_are_generated_again(plan: EvaluationPlan, caplog: pytest.LogCaptureFixture) -> None:
    results = run_evaluation(plan)
    assert results.samples[0].reference
    file = plan.image_cache / results.samples[0].reference.file
    content = file.read_bytes()
    file.write_bytes(content[:40])
    assert without_times(run_evaluation(plan)) == without_times(results)
    assert file.read_bytes() == content
    assert caplog.messages == [f"1 cached image is damaged, such as {file}. Generating again."]


def fail_for(text: str, pipeline: Path, folder: Path) -> ImageSource:
    """A copy of a pipeline whose chat template refuses prompts with a text, but none that is tried before the work."""
    shutil.copytree(pipeline, folder)
    template = folder / "tokenizer" / "chat_template.jinja"
    refusal = "{{ raise_exception('no such words') }}"
    content = "messages[0]['content']"
    condition = f"{{% if '{text}' in {content} and {content} != '{TRIAL_PROMPT}' %}}{refusal}{{% endif %}}"
    template.write_text(condition + template.read_text("utf-8"), "utf-8")
    return ImageSource("diffusers", folder)


def test_a_prompt_that_fails_has_a_reason_and_the_others_go_on(
    plan: EvaluationPlan, candidate: Path, tmp_path: Path
) -> None:
    """It is no pass: the verdict is that something was not measured."""
    broken = fail_for("花园", candidate, tmp_path / "broken")
    results = run_evaluation(
        replace(plan, candidates={"coarse": broken}, output=tmp_path / "out", metrics=("psnr",), gates={"psnr_min": 1})
    )
    pairs = [sample.variants["coarse"] for sample in results.samples]
    assert [pair.failure for pair in pairs] == [None, "not generated (TemplateError: no such words)", None]
    assert (pairs[1].image, pairs[1].values) == (None, {})
    whole = run_evaluation(replace(plan, metrics=("psnr",)))
    for number in (0, 2):  # alone instead of in a batch, so that the last bits may differ
        assert pairs[number].values["psnr"] == pytest.approx(
            whole.samples[number].variants["coarse"].values["psnr"], 0.01
        )
    assert (results.variants["coarse"].num_pairs, results.verdict) == (2, "not measured")
    assert "The first one: b, seed 0: not generated (TemplateError: no such words)." in describe_unmeasured(results)[0]


def test_a_reference_that_fails_for_a_prompt_has_a_reason_as_well(
    plan: EvaluationPlan, reference: Path, tmp_path: Path
) -> None:
    broken = fail_for("花园", reference, tmp_path / "broken")
    results = run_evaluation(replace(plan, reference=broken, output=tmp_path / "out", metrics=("psnr",)))
    failures = [sample.variants["coarse"].failure for sample in results.samples]
    assert failures == [None, "reference not generated (TemplateError: no such words)", None]
    assert results.samples[1].reference is None
    assert results.verdict == "not measured"


def test_a_candidate_that_always_fails_ends_the_run_and_earlier_results_remain(
    plan: EvaluationPlan, candidate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    run_evaluation(replace(plan, output=output))
    (folder,) = [path for path in output.iterdir() if path.is_dir()]
    content = (folder / "results.json").read_bytes()
    broken = fail_for("", candidate, tmp_path / "broken")
    with pytest.raises(UserError, match=r"broken cannot generate images: TemplateError: no such words\. Quantize"):
        run_evaluation(replace(plan, candidates={"coarse": broken}, output=output))
    assert (folder / "results.json").read_bytes() == content
    assert list(output.iterdir()) == [folder]
    assert f"There are no new results. Those of the last run are in {folder}." in caplog.messages


def test_unknown_gate_is_refused_before_images_are_generated(plan: EvaluationPlan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown gate 'psnr_mim'"):
        run_evaluation(replace(plan, gates={"psnr_mim": 30}, image_cache=tmp_path / "images"))
    assert not (tmp_path / "images").exists()


def test_empty_evaluation_is_refused(plan: EvaluationPlan) -> None:
    for empty in (replace(plan, prompts=()), replace(plan, seeds=0), replace(plan, candidates={})):
        with pytest.raises(UserError, match="Nothing to compare"):
            run_evaluation(empty)


def test_clean_leaves_what_a_running_evaluation_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), "red" if name == "a" else "blue").save(tmp_path / name / "0.png")
    plan = plan_image_pairs(Recipe(device="custom"), Path("a"), Path("b"), EvaluationOptions(metrics=("mae",)))
    refusals: list[str] = []

    def try_to_clean(*_: object) -> None:
        if plan.score_cache.exists():
            with pytest.raises(UserError, match=r"Another edgepress process is using artifacts\. Wait") as error:
                clean("artifacts")
            refusals.append(str(error.value))

    run_evaluation(plan, try_to_clean, write_reports=True)
    assert refusals
    assert plan.score_cache.exists()
    assert (plan.output / "report.html").exists()
    clean("artifacts")
    assert not plan.score_cache.parent.exists()
