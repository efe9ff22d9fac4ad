"""CLIP-I: the cosine of the CLIP embeddings of two pictures of one prompt and seed; 1 means that both mean the same.

One cosine for each pair, then their mean, as MagicBrush counts it. Numbers of different CLIPs do not compare.
"""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends.clip.embedder import cosine_similarity, load_clip
from ..backends.clip.spec import USAGE_HINT
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues, UnavailableMetric

NAME, TITLE = "clip_i", "CLIP-I"


def create_metric(settings: MetricSettings) -> PairMetric | UnavailableMetric:
    """With the CLIP that the settings name.

    Raises:
        UserError: they name one that cannot be loaded.
    """
    if settings.clip is None:
        return UnavailableMetric(NAME, (Score(name=NAME, title=TITLE),), f"no CLIP was named; {USAGE_HINT}")
    clip = load_clip(settings.clip)

    def measure(reference: ImageArray, variant: ImageArray, _prompt: Prompt) -> ScoreValues:
        return {NAME: cosine_similarity(clip.embed_image(reference), clip.embed_image(variant))}

    return PairMetric(
        name=NAME,
        scores=(Score(name=NAME, title=f"{TITLE} [{clip.label}]"),),
        version=lambda: clip.version,
        measure=measure,
        against_ground_truth=True,
    )
