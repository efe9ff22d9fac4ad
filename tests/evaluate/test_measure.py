from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.errors import UserError
from edgepress.evaluate.measure import Measured, Task, concurrently, measure
from edgepress.evaluate.memo import Memo, opened
from edgepress.evaluate.pictures import Shot, inspect
from edgepress.evaluate.registry import Metric, PairMetric, Picture, PictureMetric, Reading, Score, discover
from edgepress.prompts import Prompt

ASKED = Prompt(id="a", prompt="x", language="en")


class Counting:
    """A metric of brightness, and one of the difference of two; both count how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0
        score, difference = Score(name="light", title="light"), Score(name="difference", title="difference")
        self.metrics: list[Metric] = [
            PictureMetric("light", (score,), lambda: "1", self._light),
            PairMetric("difference", (difference,), lambda: "1", self._difference, against_truth=True),
        ]

    def _light(self, picture: Picture, _prompt: Prompt) -> Reading:
        self.asked += 1
        return Reading({"light": float(picture.mean())}, {"read": (str(picture.shape),)})

    def _difference(self, one: Picture, other: Picture, _prompt: Prompt) -> dict[str, float | None]:
        self.asked += 1
        return {"difference": float(one.mean() - other.mean())}


@contextmanager
def memo_in(folder: Path) -> Iterator[Memo]:
    with opened(folder / "memo.sqlite") as memo:
        yield memo


def shot(value: int, file: Path) -> Shot:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)
    found = inspect(file)
    assert isinstance(found, Shot)
    return found


def measured(tasks: list[Task], counting: Counting, folder: Path, anew: bool = False) -> Measured:
    versions = {metric.name: metric.version() for metric in counting.metrics}
    with memo_in(folder) as memo:
        return measure(tasks, counting.metrics, versions, memo, anew=anew)


@pytest.fixture
def shots(tmp_path: Path) -> tuple[Shot, Shot]:
    return shot(10, tmp_path / "0.png"), shot(30, tmp_path / "1.png")


def test_one_is_judged_and_two_are_compared(shots: tuple[Shot, Shot], tmp_path: Path) -> None:
    one, other = shots
    tasks = [Task((one,), ASKED), Task((one, other), ASKED), Task((other, one), ASKED, against_truth=True)]
    found = measured(tasks, Counting(), tmp_path)
    assert [found.readings[task.about] for task in tasks] == [
        {"light": Reading({"light": 10.0}, {"read": ("(8, 8, 3)",)})},
        {"difference": Reading({"difference": -20.0}, {})},
        {"difference": Reading({"difference": 20.0}, {})},
    ]
    assert {name: (cost.made, cost.kept) for name, cost in found.costs.items()} == {
        "light": (1, 0),
        "difference": (2, 0),
    }


def test_true_pictures_are_not_compared_by_a_metric_that_does_not_ask_for_them(shots: tuple[Shot, Shot]) -> None:
    metric = PairMetric("flip", (), lambda: "1", lambda *_: {})
    assert Task(shots, ASKED).takes(metric)
    assert not Task(shots, ASKED, against_truth=True).takes(metric)


def test_a_picture_is_measured_once_in_all_runs(shots: tuple[Shot, Shot], tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    copy = Shot(shot(10, tmp_path / "copy.png").file, shots[0].digest, 8, 8, None)
    tasks = [Task((shots[0],), ASKED), Task((copy,), ASKED.model_copy(update={"id": "b"}))]
    once = measured(tasks, first, tmp_path)
    again = measured(tasks, second, tmp_path)
    assert (first.asked, second.asked) == (1, 0)
    assert once.readings == again.readings
    assert (again.costs["light"].made, again.costs["light"].kept, again.costs["light"].seconds) == (0, 1, 0)
    assert measured(tasks, second, tmp_path, anew=True).costs["light"].made == 1


def test_a_metric_that_fails_is_named_with_the_picture(shots: tuple[Shot, Shot], tmp_path: Path) -> None:
    def fail(_picture: Picture, _prompt: Prompt) -> Reading:
        raise ValueError("win_size exceeds\nimage extent.")

    counting = Counting()
    counting.metrics = [PictureMetric("light", (), lambda: "1", fail)]
    with pytest.raises(UserError, match=r"metric light could not measure .*0\.png: win_size exceeds image extent\.$"):
        measured([Task((shots[0],), ASKED)], counting, tmp_path)


def test_a_cut_run_keeps_what_it_measured(shots: tuple[Shot, Shot], tmp_path: Path) -> None:
    counting = Counting()
    tasks = [Task((one,), ASKED) for one in shots]

    def cut(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with memo_in(tmp_path) as memo, pytest.raises(KeyboardInterrupt):
        measure(tasks, counting.metrics, {"light": "1", "difference": "1"}, memo, cut)
    later = Counting()
    seen: list[tuple[str, int, int]] = []
    with memo_in(tmp_path) as memo:
        measure(tasks, later.metrics, {"light": "1", "difference": "1"}, memo, lambda *state: seen.append(state))
    assert later.asked == 1
    assert seen == [("measuring", 1, 2), ("measuring", 2, 2)]


def test_threads_keep_the_order() -> None:
    threads: set[int] = set()

    def double(number: int) -> int:
        threads.add(threading.get_ident())
        return 2 * number

    assert list(concurrently(double, range(50))) == list(range(0, 100, 2))
    assert threading.get_ident() not in threads


def test_the_shipped_metrics_on_a_sign_and_a_lighter_copy(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[0]
    sign = inspect(file)
    picture = np.asarray(Image.open(file)) + np.uint8(4)
    Image.fromarray(picture).save(tmp_path / "lighter.png")
    lighter = inspect(tmp_path / "lighter.png")
    assert isinstance(sign, Shot)
    assert isinstance(lighter, Shot)
    metrics = discover(only=["psnr", "ssim", "text"]).metrics
    tasks = [Task((sign,), prompt), Task((lighter,), prompt), Task((sign, lighter), prompt)]
    with memo_in(tmp_path) as memo:
        found = measure(tasks, metrics, {metric.name: metric.version() for metric in metrics}, memo)
    assert found.readings[tasks[2].about]["psnr"].values["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    for task in tasks[:2]:
        assert found.readings[task.about]["text"].values == {"text_accuracy": 1, "exact": 1, "ned": 1}
