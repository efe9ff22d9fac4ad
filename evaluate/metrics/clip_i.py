"""CLIP-I: cosine similarity of the CLIP embeddings of two images of the same prompt and seed; 1 is best.

The score is the mean of the similarities of all pairs, as in MagicBrush. Scores of different CLIP models cannot be
compared.
"""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends.clip.embedder import cosine_similarity, load_clip
from ..backends.clip.spec import USAGE_HINT
from ..images.types import ImageArray
from .base import MetricSettings, PairMetric, Score, ScoreValues, UnavailableMetric

NAME, TITLE = "clip_i", "CLIP-I"


def create_metric(settings: MetricSettings) -> PairMetric | UnavailableMetric:
    """Creates the metric with the CLIP model of the settings.

    Raises:
        UserError: The CLIP model cannot be loaded.
    """
    if settings.clip is None:
        return UnavailableMetric(NAME, (Score(name=NAME, title=TITLE),), f"no CLIP model was given; {USAGE_HINT}")
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
