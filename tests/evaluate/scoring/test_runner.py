from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.images.image_file import ImageRecord, load_record
from edgepress.evaluate.images.suitability import require_side
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import ImageMetric, Metric, MetricResult, PairMetric, Score
from edgepress.evaluate.metrics.registry import load_metrics
from edgepress.evaluate.scoring.runner import ScoreTable, ScoreTask, score_images
from edgepress.evaluate.scoring.score_cache import open_score_cache
from edgepress.prompts.prompt import Prompt

PROMPT = Prompt(id="a", prompt="x", language="en")


class CountingMetrics:
    """An image metric (brightness) and a pair metric (difference of brightness) that count their calls."""

    def __init__(self) -> None:
        self.num_calls = 0
        brightness, difference = Score(name="light", title="light"), Score(name="difference", title="difference")
        self.metrics: list[Metric] = [
            ImageMetric("light", (brightness,), lambda: "1", self._measure_brightness),
            PairMetric("difference", (difference,), lambda: "1", self._measure_difference, against_ground_truth=True),
        ]

    def _measure_brightness(self, image: ImageArray, _prompt: Prompt) -> MetricResult:
        self.num_calls += 1
        return MetricResult({"light": float(image.mean())}, {"read": (str(image.shape),)})

    def _measure_difference(
        self, reference: ImageArray, variant: ImageArray, _prompt: Prompt
    ) -> dict[str, float | None]:
        self.num_calls += 1
        return {"difference": float(reference.mean() - variant.mean())}


def save_gray_image(value: int, file: Path) -> ImageRecord:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)
    record = load_record(file)
    assert isinstance(record, ImageRecord)
    return record


def run_tasks(tasks: list[ScoreTask], metrics: list[Metric], folder: Path, overwrite: bool = False) -> ScoreTable:
    versions = {metric.name: metric.version() for metric in metrics}
    with open_score_cache(folder / "scores.sqlite") as cache:
        return score_images(tasks, metrics, versions, cache, overwrite=overwrite)


@pytest.fixture
def images(tmp_path: Path) -> tuple[ImageRecord, ImageRecord]:
    return save_gray_image(10, tmp_path / "0.png"), save_gray_image(30, tmp_path / "1.png")


def test_metrics_apply_to_single_images_or_to_pairs(images: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    first, second = images
    tasks = [
        ScoreTask((first,), PROMPT),
        ScoreTask((first, second), PROMPT),
        ScoreTask((second, first), PROMPT, against_ground_truth=True),
    ]
    table = run_tasks(tasks, CountingMetrics().metrics, tmp_path)
    assert [table.results[task.key] for task in tasks] == [
        {"light": MetricResult({"light": 10.0}, {"read": ("(8, 8, 3)",)})},
        {"difference": MetricResult({"difference": -20.0}, {})},
        {"difference": MetricResult({"difference": 20.0}, {})},
    ]
    costs = {name: (cost.computed, cost.cached) for name, cost in table.costs.items()}
    assert costs == {"light": (1, 0), "difference": (2, 0)}


def test_ground_truth_is_left_to_metrics_that_support_it(images: tuple[ImageRecord, ImageRecord]) -> None:
    metric = PairMetric("flip", (), lambda: "1", lambda *_: {})
    assert ScoreTask(images, PROMPT).accepts(metric)
    assert not ScoreTask(images, PROMPT, against_ground_truth=True).accepts(metric)


def test_equal_images_are_scored_once_in_all_runs(images: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    first_run, second_run = CountingMetrics(), CountingMetrics()
    copy = ImageRecord(save_gray_image(10, tmp_path / "copy.png").file, images[0].digest, 8, 8, None)
    tasks = [ScoreTask((images[0],), PROMPT), ScoreTask((copy,), PROMPT.model_copy(update={"id": "b"}))]
    computed = run_tasks(tasks, first_run.metrics, tmp_path)
    cached = run_tasks(tasks, second_run.metrics, tmp_path)
    assert (first_run.num_calls, second_run.num_calls) == (1, 0)
    assert computed.results == cached.results
    cost = cached.costs["light"]
    assert (cost.computed, cost.cached, cost.cpu_seconds) == (0, 1, 0)
    assert run_tasks(tasks, second_run.metrics, tmp_path, overwrite=True).costs["light"].computed == 1


def make_metric(measure: Callable[[ImageArray], float]) -> ImageMetric:
    def wrap(image: ImageArray, _prompt: Prompt) -> MetricResult:
        return MetricResult({"light": measure(image)}, {})

    return ImageMetric("light", (Score(name="light", title="light"),), lambda: "1", wrap)


def fail_for_dark(image: ImageArray) -> float:
    if image.mean() < 20:
        raise ValueError("win_size exceeds\nimage extent.")
    return float(image.mean())


def test_image_for_which_a_metric_fails_has_a_reason_and_the_run_goes_on(
    images: tuple[ImageRecord, ImageRecord], tmp_path: Path
) -> None:
    tasks = [ScoreTask((image,), PROMPT) for image in images]
    dark, bright = run_tasks(tasks, [make_metric(fail_for_dark)], tmp_path).results.values()
    reason = "the metric failed (win_size exceeds image extent)"
    assert dark["light"] == MetricResult({"light": None}, {"light": (reason,)})
    assert bright["light"] == MetricResult({"light": 30.0}, {})
    repaired = run_tasks(tasks, [make_metric(lambda image: float(image.mean()))], tmp_path)
    assert repaired.results[tasks[0].key]["light"].values == {"light": 10.0}  # a failure is not cached


def test_metric_that_fails_for_every_image_is_an_error(images: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    message = r"metric 'light' failed for every image\. The first one is .*0\.png: win_size exceeds image extent\. "
    with pytest.raises(UserError, match=message):
        run_tasks([ScoreTask((images[0],), PROMPT)], [make_metric(fail_for_dark)], tmp_path)


def test_image_that_does_not_suit_a_metric_has_a_reason(
    images: tuple[ImageRecord, ImageRecord], tmp_path: Path
) -> None:
    def refuse(image: ImageArray) -> float:
        require_side(image, 11, "a window")
        return 0.0

    tasks = [ScoreTask((images[0],), PROMPT)]
    (results,) = run_tasks(tasks, [make_metric(refuse)], tmp_path).results.values()
    assert results["light"].notes == {"light": ("an image of 8x8 pixels is smaller than a window",)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_reasons(
    images: tuple[ImageRecord, ImageRecord], value: float, tmp_path: Path
) -> None:
    (results,) = run_tasks(
        [ScoreTask((images[0],), PROMPT)], [make_metric(lambda _image: value)], tmp_path
    ).results.values()
    assert results["light"] == MetricResult({"light": None}, {"light": (f"the value is {value}",)})


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 40), (40, 3), (12, 12)])
def test_shipped_metrics_score_or_explain_tiny_images(shape: tuple[int, int], tmp_path: Path) -> None:
    """OCR and CLIP have tests of their own."""
    rng = np.random.default_rng(0)
    files = [tmp_path / name for name in ("0.png", "1.png")]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(file)
    first, second = (load_record(file) for file in files)
    assert isinstance(first, ImageRecord)
    assert isinstance(second, ImageRecord)
    metrics = [metric for metric in load_metrics().metrics if isinstance(metric, PairMetric)]
    (results,) = run_tasks([ScoreTask((first, second), PROMPT)], list(metrics), tmp_path).results.values()
    for metric in metrics:
        for score in metric.scores:
            value = results[metric.name].values[score.name]
            assert (value is None) == (score.name in results[metric.name].notes)


def test_interrupted_run_keeps_its_results(images: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    tasks = [ScoreTask((image,), PROMPT) for image in images]
    versions = {"light": "1", "difference": "1"}

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with open_score_cache(tmp_path / "scores.sqlite") as cache, pytest.raises(KeyboardInterrupt):
        score_images(tasks, CountingMetrics().metrics, versions, cache, interrupt)
    resumed = CountingMetrics()
    states: list[tuple[str, int, int]] = []
    with open_score_cache(tmp_path / "scores.sqlite") as cache:
        score_images(tasks, resumed.metrics, versions, cache, lambda *state: states.append(state))
    assert resumed.num_calls == 1
    assert states == [("computing metrics", 1, 2), ("computing metrics", 2, 2)]


@pytest.mark.slow
def test_shipped_metrics_score_a_sign_and_a_brighter_copy(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[0]
    Image.fromarray(np.asarray(Image.open(file)) + np.uint8(4)).save(tmp_path / "brighter.png")
    sign, brighter = load_record(file), load_record(tmp_path / "brighter.png")
    assert isinstance(sign, ImageRecord)
    assert isinstance(brighter, ImageRecord)
    tasks = [ScoreTask((sign,), prompt), ScoreTask((brighter,), prompt), ScoreTask((sign, brighter), prompt)]
    table = run_tasks(tasks, load_metrics(selected=["psnr", "ssim", "text"]).metrics, tmp_path)
    assert table.results[tasks[2].key]["psnr"].values["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    for task in tasks[:2]:
        assert table.results[task.key]["text"].values == {"text_accuracy": 1, "exact": 1, "ned": 1}
