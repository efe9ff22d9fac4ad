from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.common.threads import map_threads
from edgepress.evaluate.images.image_file import ImageRecord, load_record
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import ImageMetric, Metric, MetricResult, PairMetric, Score
from edgepress.evaluate.metrics.registry import load_metrics
from edgepress.evaluate.scoring.runner import ScoreTable, ScoreTask, score_images
from edgepress.evaluate.scoring.score_cache import ScoreCache, open_score_cache
from edgepress.prompts.prompt import Prompt

ASKED = Prompt(id="a", prompt="x", language="en")


class Counting:
    """A metric of brightness, and one of the difference of two; both count how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0
        score, difference = Score(name="light", title="light"), Score(name="difference", title="difference")
        self.metrics: list[Metric] = [
            ImageMetric("light", (score,), lambda: "1", self._light),
            PairMetric("difference", (difference,), lambda: "1", self._difference, against_ground_truth=True),
        ]

    def _light(self, picture: ImageArray, _prompt: Prompt) -> MetricResult:
        self.asked += 1
        return MetricResult({"light": float(picture.mean())}, {"read": (str(picture.shape),)})

    def _difference(self, one: ImageArray, other: ImageArray, _prompt: Prompt) -> dict[str, float | None]:
        self.asked += 1
        return {"difference": float(one.mean() - other.mean())}


@contextmanager
def memo_in(folder: Path) -> Iterator[ScoreCache]:
    with open_score_cache(folder / "memo.sqlite") as memo:
        yield memo


def shot(value: int, file: Path) -> ImageRecord:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)
    found = load_record(file)
    assert isinstance(found, ImageRecord)
    return found


def measured(tasks: list[ScoreTask], counting: Counting, folder: Path, anew: bool = False) -> ScoreTable:
    versions = {metric.name: metric.version() for metric in counting.metrics}
    with memo_in(folder) as memo:
        return score_images(tasks, counting.metrics, versions, memo, overwrite=anew)


@pytest.fixture
def shots(tmp_path: Path) -> tuple[ImageRecord, ImageRecord]:
    return shot(10, tmp_path / "0.png"), shot(30, tmp_path / "1.png")


def test_one_is_judged_and_two_are_compared(shots: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    one, other = shots
    tasks = [
        ScoreTask((one,), ASKED),
        ScoreTask((one, other), ASKED),
        ScoreTask((other, one), ASKED, against_ground_truth=True),
    ]
    found = measured(tasks, Counting(), tmp_path)
    assert [found.results[task.key] for task in tasks] == [
        {"light": MetricResult({"light": 10.0}, {"read": ("(8, 8, 3)",)})},
        {"difference": MetricResult({"difference": -20.0}, {})},
        {"difference": MetricResult({"difference": 20.0}, {})},
    ]
    assert {name: (cost.computed, cost.cached) for name, cost in found.costs.items()} == {
        "light": (1, 0),
        "difference": (2, 0),
    }


def test_true_pictures_are_not_compared_by_a_metric_that_does_not_ask_for_them(
    shots: tuple[ImageRecord, ImageRecord],
) -> None:
    metric = PairMetric("flip", (), lambda: "1", lambda *_: {})
    assert ScoreTask(shots, ASKED).accepts(metric)
    assert not ScoreTask(shots, ASKED, against_ground_truth=True).accepts(metric)


def test_a_picture_is_measured_once_in_all_runs(shots: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    copy = ImageRecord(shot(10, tmp_path / "copy.png").file, shots[0].digest, 8, 8, None)
    tasks = [ScoreTask((shots[0],), ASKED), ScoreTask((copy,), ASKED.model_copy(update={"id": "b"}))]
    once = measured(tasks, first, tmp_path)
    again = measured(tasks, second, tmp_path)
    assert (first.asked, second.asked) == (1, 0)
    assert once.results == again.results
    assert (again.costs["light"].computed, again.costs["light"].cached, again.costs["light"].cpu_seconds) == (0, 1, 0)
    assert measured(tasks, second, tmp_path, anew=True).costs["light"].computed == 1


def test_a_metric_that_fails_is_named_with_the_picture(shots: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    def fail(_picture: ImageArray, _prompt: Prompt) -> MetricResult:
        raise ValueError("win_size exceeds\nimage extent.")

    counting = Counting()
    counting.metrics = [ImageMetric("light", (), lambda: "1", fail)]
    with pytest.raises(UserError, match=r"metric light could not measure .*0\.png: win_size exceeds image extent\.$"):
        measured([ScoreTask((shots[0],), ASKED)], counting, tmp_path)


def test_a_cut_run_keeps_what_it_measured(shots: tuple[ImageRecord, ImageRecord], tmp_path: Path) -> None:
    counting = Counting()
    tasks = [ScoreTask((one,), ASKED) for one in shots]

    def cut(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with memo_in(tmp_path) as memo, pytest.raises(KeyboardInterrupt):
        score_images(tasks, counting.metrics, {"light": "1", "difference": "1"}, memo, cut)
    later = Counting()
    seen: list[tuple[str, int, int]] = []
    with memo_in(tmp_path) as memo:
        score_images(tasks, later.metrics, {"light": "1", "difference": "1"}, memo, lambda *state: seen.append(state))
    assert later.asked == 1
    assert seen == [("measuring", 1, 2), ("measuring", 2, 2)]


def test_threads_keep_the_order() -> None:
    threads: set[int] = set()

    def double(number: int) -> int:
        threads.add(threading.get_ident())
        return 2 * number

    assert list(map_threads(double, range(50))) == list(range(0, 100, 2))
    assert threading.get_ident() not in threads


def test_the_shipped_metrics_on_a_sign_and_a_lighter_copy(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[0]
    sign = load_record(file)
    picture = np.asarray(Image.open(file)) + np.uint8(4)
    Image.fromarray(picture).save(tmp_path / "lighter.png")
    lighter = load_record(tmp_path / "lighter.png")
    assert isinstance(sign, ImageRecord)
    assert isinstance(lighter, ImageRecord)
    metrics = load_metrics(selected=["psnr", "ssim", "text"]).metrics
    tasks = [ScoreTask((sign,), prompt), ScoreTask((lighter,), prompt), ScoreTask((sign, lighter), prompt)]
    with memo_in(tmp_path) as memo:
        found = score_images(tasks, metrics, {metric.name: metric.version() for metric in metrics}, memo)
    assert found.results[tasks[2].key]["psnr"].values["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    for task in tasks[:2]:
        assert found.results[task.key]["text"].values == {"text_accuracy": 1, "exact": 1, "ned": 1}
