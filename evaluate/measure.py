"""Measures pictures and pairs of pictures by every metric: in several threads, and nothing twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt
from ..source_code import code_of
from .memo import Memo, key_of
from .pictures import Shot, open_picture
from .registry import Metric, Picture, PictureMetric, Reading
from .results import Cost

STAGE = "measuring"
About = tuple[tuple[str, ...], str, bool]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Task:
    """Pictures of a prompt that belong together: one to be judged alone, or two to be compared.

    against_truth: whether the first of two is the true picture.
    """

    shots: tuple[Shot, ...]
    prompt: Prompt
    against_truth: bool = False

    @property
    def about(self) -> About:
        """Equal for tasks whose readings are equal: the contents, the prompt's id, and what the first picture is."""
        return tuple(shot.digest for shot in self.shots), self.prompt.id, self.against_truth

    def takes(self, metric: Metric) -> bool:
        """Whether a metric is about such pictures."""
        if isinstance(metric, PictureMetric):
            return len(self.shots) == 1
        return len(self.shots) == 2 and (metric.against_truth or not self.against_truth)

    def key(self, metric: Metric, version: str) -> str:
        code = code_of(metric.measure.__module__)
        return key_of(metric.name, version, code, [shot.digest for shot in self.shots], self.prompt)


class Measured(NamedTuple):
    """For each task the readings by metric; and what each metric cost."""

    readings: dict[About, dict[str, Reading]]
    costs: dict[str, Cost]


class Made(NamedTuple):
    """A reading that was made, and the seconds of its thread's CPU time."""

    key: str
    metric: str
    reading: Reading
    seconds: float


def measure(
    tasks: Sequence[Task],
    metrics: Sequence[Metric],
    versions: Mapping[str, str],
    memo: Memo,
    progress: Progress = silent,
    anew: bool = False,
) -> Measured:
    """Takes what the memo holds, measures the rest, and keeps each reading as soon as it is made.

    Args:
        versions: of the metrics, by name.
        anew: measure what the memo holds, too.
    """
    keys = [{one.name: task.key(one, versions[one.name]) for one in metrics if task.takes(one)} for task in tasks]
    wanted = {key: name for task in keys for name, key in task.items()}
    found = {} if anew else {key: reading for key in wanted if (reading := memo.get(key))}
    kept = Counter(wanted[key] for key in found)
    made: list[Made] = []
    progress(STAGE, len(found), len(wanted))
    for one in _made(_missing(tasks, keys, found), {metric.name: metric for metric in metrics}):
        memo.keep(one.key, one.reading)
        made.append(one)
        found[one.key] = one.reading
        progress(STAGE, len(found), len(wanted))
    costs = {metric.name: _cost(metric.name, made, kept[metric.name]) for metric in metrics}
    pairs = zip(tasks, keys, strict=True)
    return Measured({task.about: {name: found[key] for name, key in own.items()} for task, own in pairs}, costs)


def concurrently(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's results in the order of the items, from a thread for each core."""
    with _threads() as pool:
        yield from pool.map(function, items)


def _missing(
    tasks: Sequence[Task], keys: Sequence[Mapping[str, str]], found: Mapping[str, Reading]
) -> list[tuple[Task, dict[str, str]]]:
    """Tasks with the keys, by metric, that nobody has a reading for; each key with the first task that wants it."""
    taken = set(found)
    missing = []
    for task, wanted in zip(tasks, keys, strict=True):
        new = {name: key for name, key in wanted.items() if key not in taken}
        taken.update(new.values())
        if new:
            missing.append((task, new))
    return missing


def _made(missing: Sequence[tuple[Task, dict[str, str]]], metrics: Mapping[str, Metric]) -> Iterator[Made]:
    """Readings as they come."""
    with _threads() as pool:
        running = [pool.submit(_read, task, new, metrics) for task, new in missing]
        for future in as_completed(running):
            yield from future.result()


def _read(task: Task, keys: Mapping[str, str], metrics: Mapping[str, Metric]) -> list[Made]:
    """All readings of a task that are wanted.

    Raises:
        UserError: a picture that can no longer be read, or one that a metric fails on.
    """
    pictures = [open_picture(shot.file) for shot in task.shots]
    made = []
    for name, key in keys.items():
        begin = time.thread_time()
        try:
            reading = _reading(metrics[name], pictures, task.prompt)
        except Exception as error:  # metrics are anybody's: whatever stops one is told with the picture
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise UserError(f"The metric {name} could not measure {task.shots[-1].file}: {said}.") from error
        made.append(Made(key, name, reading, time.thread_time() - begin))
    return made


def _reading(metric: Metric, pictures: Sequence[Picture], prompt: Prompt) -> Reading:
    if isinstance(metric, PictureMetric):
        return metric.measure(pictures[0], prompt)
    return Reading(metric.measure(pictures[0], pictures[1], prompt), {})


def _cost(metric: str, made: Sequence[Made], kept: int) -> Cost:
    seconds = [one.seconds for one in made if one.metric == metric]
    return Cost(made=len(seconds), kept=kept, seconds=sum(seconds))


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One for each core; what has not begun when an error or Ctrl-C comes is dropped."""
    pool = ThreadPoolExecutor(_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Those that this process may use, where the system tells that apart."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
