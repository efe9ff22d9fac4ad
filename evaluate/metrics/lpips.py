"""LPIPS: the distance of two pictures in AlexNet's features, 0 for identical ones; measured where weights are given."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ...prompts import Prompt
from ..lpips import HOW, Lpips
from ..registry import PairMetric, Picture, Score, Settings, Unavailable, Values

SCORES = (Score(name="lpips", title="LPIPS", higher_is_better=False),)


@lru_cache(maxsize=1)
def _loaded(folder: str) -> Lpips:
    return Lpips(Path(folder).expanduser())


def make(settings: Settings) -> PairMetric | Unavailable:
    """With the weights of the folder that the settings name.

    Raises:
        UserError: they name one without them.
    """
    if settings.lpips is None:
        return Unavailable("lpips", SCORES, f"no weights were given; {HOW}")
    lpips = _loaded(settings.lpips)

    def measure(reference: Picture, variant: Picture, _prompt: Prompt) -> Values:
        return {"lpips": lpips.distance(reference, variant)}

    return PairMetric(name="lpips", scores=SCORES, version=lambda: lpips.version, measure=measure, against_truth=True)
