"""Numbers of results.json that can only be of a range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from ..metrics.base import Score
from ..stats.bootstrap import MeanCI


def _require_duration(mean: MeanCI) -> MeanCI:
    if min(value for value in (mean.mean, mean.low, mean.high) if value is not None) < 0:
        raise ValueError("a mean time and its interval must be at least 0")
    return mean


NonNegative = Annotated[FiniteFloat, Field(ge=0)]
MeanDuration = Annotated[MeanCI, AfterValidator(_require_duration)]


def check_fractions(scores: Sequence[Score], rows: Iterable[Mapping[str, float | None]]) -> None:
    """Checks that the values of scores in per cent are fractions.

    Args:
        scores: All scores.
        rows: Values by the name of their score; other scores have any value.

    Raises:
        ValueError: A value lies outside 0 to 1.
    """
    fractions = {score.name for score in scores if score.unit == "%"}
    for values in rows:
        for name in fractions.intersection(values):
            value = values[name]
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"the score '{name}' has the value {value:.6g}, but it must be from 0 to 1")
