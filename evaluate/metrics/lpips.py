"""LPIPS: the distance of two pictures in AlexNet's features, 0 for identical ones; measured where weights are given."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ...prompts.prompt import Prompt
from ..backends.lpips import USAGE_HINT, LpipsModel
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues, UnavailableMetric

SCORES = (Score(name="lpips", title="LPIPS", higher_is_better=False),)


@lru_cache(maxsize=1)
def _load_model(folder: str) -> LpipsModel:
    return LpipsModel(Path(folder).expanduser())


def create_metric(settings: MetricSettings) -> PairMetric | UnavailableMetric:
    """With the weights of the folder that the settings name.

    Raises:
        UserError: they name one without them.
    """
    if settings.lpips is None:
        return UnavailableMetric("lpips", SCORES, f"no weights were given; {USAGE_HINT}")
    lpips = _load_model(settings.lpips)

    def measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
        return {"lpips": lpips.distance(reference, variant)}

    return PairMetric(
        name="lpips", scores=SCORES, version=lambda: lpips.version, measure=measure, against_ground_truth=True
    )
