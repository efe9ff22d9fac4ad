"""What a metric is, and how the ones in `metrics/` are found: a new file there is all that a new metric needs."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ..prompts import Prompt

Picture = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Values = dict[str, float | None]  # by the score's name; None: not measured on this picture


class Score(BaseModel):
    """One number that a metric gives. A `%` is kept as a fraction in 0..1 and shown as per cent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True


class Reading(NamedTuple):
    """What a metric found in one picture, and the evidence for it, such as the lines that were read."""

    values: Values
    notes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class PairMetric:
    """Compares the variant's picture with the reference's: `measure(reference, variant, prompt)`."""

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[Picture, Picture, Prompt], Values]


@dataclass(frozen=True)
class PictureMetric:
    """Judges one picture by its prompt, the reference's and the variant's alike: `measure(picture, prompt)`."""

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[Picture, Prompt], Reading]


Metric = PairMetric | PictureMetric


def discover() -> list[Metric]:
    """The metrics of the folder `metrics/`, by file name.

    Raises:
        ValueError: two scores bear the same name.
    """
    from . import metrics

    names = sorted(module.name for module in pkgutil.iter_modules(metrics.__path__))
    found: list[Metric] = [import_module(f"{metrics.__name__}.{name}").METRIC for name in names]
    scores = [score.name for metric in found for score in metric.scores]
    if len(scores) != len(set(scores)):
        raise ValueError(f"two scores bear the same name: {', '.join(sorted(scores))}")
    return found


def pair_scores(metrics: Sequence[Metric]) -> tuple[Score, ...]:
    return tuple(score for metric in metrics if isinstance(metric, PairMetric) for score in metric.scores)


def picture_scores(metrics: Sequence[Metric]) -> tuple[Score, ...]:
    return tuple(score for metric in metrics if isinstance(metric, PictureMetric) for score in metric.scores)
