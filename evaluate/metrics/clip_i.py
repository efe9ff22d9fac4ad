"""CLIP-I: the cosine of the CLIP embeddings of two pictures of one prompt and seed; 1 means that both mean the same.

One cosine for each pair, then their mean, as MagicBrush counts it. Numbers of different CLIPs do not compare.
"""

from __future__ import annotations

from ...prompts import Prompt
from ..clip.embed import clip_of, cosine
from ..clip.spec import HOW
from ..registry import PairMetric, Picture, Score, Settings, Unavailable, Values

NAME, TITLE = "clip_i", "CLIP-I"


def make(settings: Settings) -> PairMetric | Unavailable:
    """With the CLIP that the settings name.

    Raises:
        UserError: they name one that cannot be loaded.
    """
    if settings.clip is None:
        return Unavailable(NAME, (Score(name=NAME, title=TITLE),), f"no CLIP was named; {HOW}")
    clip = clip_of(settings.clip)

    def measure(reference: Picture, variant: Picture, _prompt: Prompt) -> Values:
        return {NAME: cosine(clip.picture(reference), clip.picture(variant))}

    return PairMetric(
        name=NAME,
        scores=(Score(name=NAME, title=f"{TITLE} [{clip.label}]"),),
        version=lambda: clip.version,
        measure=measure,
        against_truth=True,
    )
