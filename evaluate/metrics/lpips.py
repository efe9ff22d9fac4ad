"""LPIPS: the distance of two images in the features of AlexNet. 0 for identical images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ...prompts.prompt import Prompt
from ..backends.lpips import USAGE_HINT, LpipsModel
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues, UnavailableMetric

SCORES = (Score(name="lpips", title="LPIPS", higher_is_better=False),)


def create_metric(settings: MetricSettings) -> PairMetric | UnavailableMetric:
    """Creates the metric with the weights in the folder that the settings name.

    Raises:
        UserError: The folder does not contain the weights.
    """
    if settings.lpips is None:
        return UnavailableMetric("lpips", SCORES, f"no weights were given; {USAGE_HINT}")
    model = _load_model(settings.lpips)

    def measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
        return {"lpips": model.distance(reference, variant)}

    return PairMetric(
        name="lpips", scores=SCORES, version=lambda: model.version, measure=measure, against_ground_truth=True
    )


@lru_cache(maxsize=1)
def _load_model(folder: str) -> LpipsModel:
    return LpipsModel(Path(folder).expanduser())
