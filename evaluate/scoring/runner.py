"""Measures pictures and pairs of pictures by every metric: in several threads, and nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import NamedTuple

from ...common.code_fingerprint import code_fingerprint
from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...common.threads import _thread_pool
from ...prompts.prompt import Prompt
from ..images.image_file import ImageRecord, load_image
from ..images.types import ImageArray
from ..metrics.base import ImageMetric, Metric, MetricResult
from ..results.schema import MetricCost
from .score_cache import ScoreCache, make_cache_key

STAGE = "measuring"
TaskKey = tuple[tuple[str, ...], str, bool]


@dataclass(frozen=True)
class ScoreTask:
    """Pictures of a prompt that belong together: one to be judged alone, or two to be compared.

    against_truth: whether the first of two is the true picture.
    """

    images: tuple[ImageRecord, ...]
    prompt: Prompt
    against_ground_truth: bool = False

    @property
    def key(self) -> TaskKey:
        """Equal for tasks whose readings are equal: the contents, the prompt's id, and what the first picture is."""
        return tuple(shot.digest for shot in self.images), self.prompt.id, self.against_ground_truth

    def accepts(self, metric: Metric) -> bool:
        """Whether a metric is about such pictures."""
        if isinstance(metric, ImageMetric):
            return len(self.images) == 1
        return len(self.images) == 2 and (metric.against_ground_truth or not self.against_ground_truth)

    def cache_key(self, metric: Metric, version: str) -> str:
        code = code_fingerprint(metric.measure.__module__)
        return make_cache_key(metric.name, version, code, [shot.digest for shot in self.images], self.prompt)


class ScoreTable(NamedTuple):
    """For each task the readings by metric; and what each metric cost."""

    results: dict[TaskKey, dict[str, MetricResult]]
    costs: dict[str, MetricCost]


class NewScore(NamedTuple):
    """A reading that was made, and the seconds of its thread's CPU time."""

    key: str
    metric: str
    result: MetricResult
    seconds: float


def score_images(
    tasks: Sequence[ScoreTask],
    metrics: Sequence[Metric],
    versions: Mapping[str, str],
    cache: ScoreCache,
    progress: Progress = no_progress,
    overwrite: bool = False,
) -> ScoreTable:
    """Takes what the memo holds, measures the rest, and keeps each reading as soon as it is made.

    Args:
        versions: of the metrics, by name.
        anew: measure what the memo holds, too.
    """
    keys = [
        {one.name: task.cache_key(one, versions[one.name]) for one in metrics if task.accepts(one)} for task in tasks
    ]
    wanted = {key: name for task in keys for name, key in task.items()}
    results = {} if overwrite else {key: reading for key in wanted if (reading := cache.get(key))}
    num_cached = Counter(wanted[key] for key in results)
    new_scores: list[NewScore] = []
    progress(STAGE, len(results), len(wanted))
    for one in _compute_missing(_find_missing(tasks, keys, results), {metric.name: metric for metric in metrics}):
        cache.put(one.key, one.result)
        new_scores.append(one)
        results[one.key] = one.result
        progress(STAGE, len(results), len(wanted))
    costs = {metric.name: _summarize_cost(metric.name, new_scores, num_cached[metric.name]) for metric in metrics}
    pairs = zip(tasks, keys, strict=True)
    return ScoreTable({task.key: {name: results[key] for name, key in own.items()} for task, own in pairs}, costs)


def _find_missing(
    tasks: Sequence[ScoreTask], keys: Sequence[Mapping[str, str]], found: Mapping[str, MetricResult]
) -> list[tuple[ScoreTask, dict[str, str]]]:
    """Tasks with the keys, by metric, that nobody has a reading for; each key with the first task that wants it."""
    taken = set(found)
    missing = []
    for task, wanted in zip(tasks, keys, strict=True):
        new = {name: key for name, key in wanted.items() if key not in taken}
        taken.update(new.values())
        if new:
            missing.append((task, new))
    return missing


def _compute_missing(
    missing: Sequence[tuple[ScoreTask, dict[str, str]]], metrics: Mapping[str, Metric]
) -> Iterator[NewScore]:
    """Readings as they come."""
    with _thread_pool() as pool:
        running = [pool.submit(_score_task, task, new, metrics) for task, new in missing]
        for future in as_completed(running):
            yield from future.result()


def _score_task(task: ScoreTask, keys: Mapping[str, str], metrics: Mapping[str, Metric]) -> list[NewScore]:
    """All readings of a task that are wanted.

    Raises:
        UserError: a picture that can no longer be read, or one that a metric fails on.
    """
    pictures = [load_image(shot.file) for shot in task.images]
    made = []
    for name, key in keys.items():
        begin = time.thread_time()
        try:
            reading = _apply_metric(metrics[name], pictures, task.prompt)
        except Exception as error:  # metrics are anybody's: whatever stops one is told with the picture
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise UserError(f"The metric {name} could not measure {task.images[-1].file}: {said}.") from error
        made.append(NewScore(key, name, reading, time.thread_time() - begin))
    return made


def _apply_metric(metric: Metric, pictures: Sequence[ImageArray], prompt: Prompt) -> MetricResult:
    if isinstance(metric, ImageMetric):
        return metric.measure(pictures[0], prompt)
    return MetricResult(metric.measure(pictures[0], pictures[1], prompt), {})


def _summarize_cost(metric: str, made: Sequence[NewScore], kept: int) -> MetricCost:
    seconds = [one.seconds for one in made if one.metric == metric]
    return MetricCost(computed=len(seconds), cached=kept, cpu_seconds=sum(seconds))
