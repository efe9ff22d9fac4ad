"""Applies the metrics to images and pairs of images: in several threads or processes, and to every image only once.

An image that a metric cannot score has a reason in its row, and the run goes on. Only a metric that fails for every
image stops it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

from ...common.code_fingerprint import code_fingerprint
from ...common.errors import UserError
from ...common.executor import THIS_PROCESS, Executor
from ...common.progress import Progress, no_progress
from ...common.requirements import reject_failed_import
from ...prompts.prompt import Prompt
from ..images.image_file import ImageRecord, load_image
from ..images.suitability import UnsuitableImageError
from ..images.types import ImageArray
from ..metrics.base import ImageMetric, Metric, MetricResult
from ..results.schema import MetricCost
from .score_cache import ScoreCache, make_cache_key

STAGE = "computing metrics"
SCORING_MEMORY = 2**30  # bytes of a process with the models of metrics

TaskKey = tuple[tuple[str, ...], str, bool]
"""Content digests of the images, prompt id, and whether the first image is the ground truth."""


@dataclass(frozen=True)
class ScoreTask:
    """One image to be scored, or two to be compared.

    Attributes:
        images: The image, or the reference and the variant, or the ground truth and a generated image.
        prompt: The prompt of all images.
        against_ground_truth: Whether the first of two images is the ground truth.
    """

    images: tuple[ImageRecord, ...]
    prompt: Prompt
    against_ground_truth: bool = False

    @property
    def key(self) -> TaskKey:
        """Identifies the results: tasks with the same key have the same results."""
        return tuple(image.digest for image in self.images), self.prompt.id, self.against_ground_truth

    def accepts(self, metric: Metric) -> bool:
        """Returns whether a metric applies to these images."""
        if isinstance(metric, ImageMetric):
            return len(self.images) == 1
        return len(self.images) == 2 and (metric.against_ground_truth or not self.against_ground_truth)

    def cache_key(self, metric: Metric, version: str) -> str:
        """Returns the key of a metric's result in the score cache."""
        code = code_fingerprint(metric.measure.__module__)
        return make_cache_key(metric.name, version, code, [image.digest for image in self.images], self.prompt)


class ScoreTable(NamedTuple):
    """The results of all tasks.

    Attributes:
        results: Results by task and name of the metric.
        costs: Cost of each metric.
    """

    results: dict[TaskKey, dict[str, MetricResult]]
    costs: dict[str, MetricCost]


class NewScore(NamedTuple):
    """A result that was computed in this run.

    Attributes:
        key: Key in the score cache.
        metric: Name of the metric.
        result: The result.
        cpu_seconds: CPU time that it took.
        failure: Why the metric failed, or None. A failure is not cached, because its cause may be elsewhere.
    """

    key: str
    metric: str
    result: MetricResult
    cpu_seconds: float
    failure: str | None = None


def score_images(
    tasks: Sequence[ScoreTask],
    metrics: Sequence[Metric],
    versions: Mapping[str, str],
    cache: ScoreCache,
    progress: Progress = no_progress,
    overwrite: bool = False,
    executor: Executor = THIS_PROCESS,
    load: Callable[[], Sequence[Metric]] | None = None,
) -> ScoreTable:
    """Applies the metrics to all tasks.

    Cached results are reused. New ones are cached as soon as they are computed.

    Args:
        tasks: The tasks.
        metrics: The metrics.
        versions: Versions of the metrics by name.
        cache: The score cache.
        progress: Called with the number of results.
        overwrite: Whether to compute cached results again.
        executor: Computes the results.
        load: Loads the metrics in another process, if the executor needs that.

    Raises:
        UserError: An image can no longer be read, or a metric fails for every image.
    """
    keys = [{m.name: task.cache_key(m, versions[m.name]) for m in metrics if task.accepts(m)} for task in tasks]
    metric_by_key = {key: name for task_keys in keys for name, key in task_keys.items()}
    results = {} if overwrite else {key: result for key in metric_by_key if (result := cache.get(key))}
    num_cached = Counter(metric_by_key[key] for key in results)
    new_scores: list[NewScore] = []
    progress(STAGE, len(results), len(metric_by_key))
    prepare = partial(_prepare_scoring, load if load and executor.is_remote else lambda: metrics)
    missing = _find_missing(tasks, keys, results)
    outcomes = executor.map(prepare, missing, memory=SCORING_MEMORY, threads=True) if missing else ()
    for score in chain.from_iterable(outcomes):
        if score.failure is None:
            cache.put(score.key, score.result)
        new_scores.append(score)
        results[score.key] = score.result
        progress(STAGE, len(results), len(metric_by_key))
    for metric in metrics:
        _require_any_success(metric.name, new_scores, num_cached[metric.name])
    table = {
        task.key: {name: results[key] for name, key in task_keys.items()}
        for task, task_keys in zip(tasks, keys, strict=True)
    }
    return ScoreTable(table, {m.name: _summarize_cost(m.name, new_scores, num_cached[m.name]) for m in metrics})


def _find_missing(
    tasks: Sequence[ScoreTask], keys: Sequence[Mapping[str, str]], results: Mapping[str, MetricResult]
) -> list[tuple[ScoreTask, dict[str, str]]]:
    """Returns the tasks with the cache keys, by metric, that have no result. Each key occurs only once."""
    known = set(results)
    missing = []
    for task, task_keys in zip(tasks, keys, strict=True):
        new_keys = {name: key for name, key in task_keys.items() if key not in known}
        known.update(new_keys.values())
        if new_keys:
            missing.append((task, new_keys))
    return missing


def _prepare_scoring(
    load: Callable[[], Sequence[Metric]],
) -> Callable[[tuple[ScoreTask, dict[str, str]]], list[NewScore]]:
    """Returns a function that computes the results of a task for some metrics."""
    metrics = {metric.name: metric for metric in load()}
    return lambda missing: _score_task(*missing, metrics)


def _score_task(task: ScoreTask, keys: Mapping[str, str], metrics: Mapping[str, Metric]) -> list[NewScore]:
    """Computes the results of a task for some metrics."""
    images = [load_image(image.file) for image in task.images]
    scores = []
    for name, key in keys.items():
        begin, failure = time.thread_time(), None
        try:
            result = _apply_metric(metrics[name], images, task.prompt)
        except ModuleNotFoundError:  # what to install is said by the caller
            raise
        except Exception as error:  # a metric may raise anything; the reason is in the row
            reject_failed_import(error)
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            failure = f"{task.images[-1].file}: {reason}"
            result = _explain_missing(metrics[name], f"the metric failed ({reason})")
        scores.append(NewScore(key, name, result, time.thread_time() - begin, failure))
    return scores


def _apply_metric(metric: Metric, images: Sequence[ImageArray], prompt: Prompt) -> MetricResult:
    """Returns finite values only; a score without one has a reason among the notes."""
    try:
        if isinstance(metric, ImageMetric):
            result = metric.measure(images[0], prompt)
        else:
            result = MetricResult(metric.measure(images[0], images[1], prompt), {})
    except UnsuitableImageError as error:
        return _explain_missing(metric, str(error))
    infinite = {name: value for name, value in result.values.items() if value is not None and not math.isfinite(value)}
    if not infinite:
        return result
    notes = {name: (f"the value is {value}",) for name, value in infinite.items()}
    return MetricResult(result.values | dict.fromkeys(infinite), result.notes | notes)


def _explain_missing(metric: Metric, reason: str) -> MetricResult:
    """Returns a result without values, and the reason under the name of each score."""
    names = [score.name for score in metric.scores]
    return MetricResult(dict.fromkeys(names), dict.fromkeys(names, (reason,)))


def _require_any_success(metric: str, new_scores: Sequence[NewScore], num_cached: int) -> None:
    scores = [score for score in new_scores if score.metric == metric]
    failures = [score.failure for score in scores if score.failure]
    if failures and len(failures) == len(scores) and not num_cached:
        raise UserError(
            f"The metric {metric!r} failed for every image. The first one is {failures[0]}. Correct this, or select "
            "other metrics with --metric."
        )


def _summarize_cost(metric: str, new_scores: Sequence[NewScore], num_cached: int) -> MetricCost:
    seconds = [score.cpu_seconds for score in new_scores if score.metric == metric]
    return MetricCost(computed=len(seconds), cached=num_cached, cpu_seconds=sum(seconds))
