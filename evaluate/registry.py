"""What a metric is, and how the ones in `metrics/` are found: a new file there is all that a new metric needs.

A file has `make(settings)`, which gives its metric, or says why it cannot be measured here. A metric may look at the
prompt's text, language and lines; its numbers are kept by these, by the pictures and by its version. Metrics are
measured by several threads at once.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ..errors import UserError
from ..prompts import Prompt

Picture = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Values = dict[str, float | None]  # by the score's name; None: not measured on this picture
TRUTH = "truth_"  # before the name of a pair score: that of the true picture and a painted one


@dataclass(frozen=True)
class Settings:
    """What metrics need to know. clip: which CLIP, as `--clip` says; lpips: the folder of its weights; None: none."""

    clip: str | None = None
    lpips: str | None = None


class Score(BaseModel):
    """One number that a metric gives. A `%` is kept as a fraction in 0..1 and shown as per cent; `binary`: 0 or 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    binary: bool = False


class Reading(NamedTuple):
    """What a metric found in one picture, and the evidence for it, such as the lines that were read."""

    values: Values
    notes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class PairMetric:
    """Compares the variant's picture with the reference's: `measure(reference, variant, prompt)`.

    against_truth: whether painted pictures are also compared with the true one where it is given:
    `measure(truth, painted, prompt)`, whose scores are called `truth_<score>`.
    """

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[Picture, Picture, Prompt], Values]
    against_truth: bool = False


@dataclass(frozen=True)
class PictureMetric:
    """Judges one picture by its prompt, the reference's and the variant's alike: `measure(picture, prompt)`."""

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[Picture, Prompt], Reading]


@dataclass(frozen=True)
class Unavailable:
    """A metric that cannot be measured here; `reason` says what it lacks and how to give it, without a full stop."""

    name: str
    scores: tuple[Score, ...]
    reason: str


Metric = PairMetric | PictureMetric


class Found(NamedTuple):
    metrics: list[Metric]
    unavailable: list[Unavailable]


def discover(settings: Settings = Settings(), only: Sequence[str] = ()) -> Found:
    """The metrics of the folder `metrics/`, by file name: all of them, or those that are asked for by name.

    Raises:
        UserError: a metric that is asked for is not known, or cannot be measured.
        ValueError: two scores bear the same name.
    """
    from . import metrics

    names = sorted(module.name for module in pkgutil.iter_modules(metrics.__path__))
    for name in only:
        if name not in names:
            raise UserError(f"There is no metric {name!r}; {suggestion(name, names)}")
    wanted = [name for name in names if not only or name in only]
    made: list[Metric | Unavailable] = [import_module(f"{metrics.__name__}.{name}").make(settings) for name in wanted]
    scores = [score.name for metric in made for score in metric.scores]
    if len(scores) != len(set(scores)):
        raise ValueError(f"two scores bear the same name: {', '.join(sorted(scores))}")
    unavailable = [metric for metric in made if isinstance(metric, Unavailable)]
    if only and unavailable:
        raise UserError(f"The metric {unavailable[0].name!r} cannot be measured: {unavailable[0].reason}.")
    return Found([metric for metric in made if not isinstance(metric, Unavailable)], unavailable)


def suggestion(name: str, known: Sequence[str]) -> str:
    """The nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."


def pair_scores(metrics: Sequence[Metric | Unavailable]) -> tuple[Score, ...]:
    """What compares the variant with the reference."""
    return tuple(score for metric in metrics if isinstance(metric, PairMetric) for score in metric.scores)


def picture_scores(metrics: Sequence[Metric], truth: bool = False) -> tuple[Score, ...]:
    """What judges a picture alone; with `truth` also what compares it with the true one."""
    compared = [metric for metric in metrics if isinstance(metric, PairMetric) and metric.against_truth and truth]
    alone = [score for metric in metrics if isinstance(metric, PictureMetric) for score in metric.scores]
    return (*(truth_score(score) for metric in compared for score in metric.scores), *alone)


def truth_score(score: Score) -> Score:
    """The score of a painted picture against the true one."""
    return score.model_copy(update={"name": TRUTH + score.name, "title": f"{score.title} to truth"})
