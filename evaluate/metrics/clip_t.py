"""CLIP-T: the cosine of the CLIP embeddings of a picture and its prompt; neither clamped nor multiplied by 100.

A prompt that is longer than the CLIP reads is left out and said to be, for CLIP would read its beginning alone. A CLIP
that was trained on English says little of Chinese prompts.
"""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends.clip.embedder import cosine_similarity, load_clip
from ..backends.clip.spec import USAGE_HINT
from ..images.types import ImageArray
from .base import ImageMetric, MetricResult, MetricSettings, Score, UnavailableMetric

NAME, TITLE = "clip_t", "CLIP-T"


def create_metric(settings: MetricSettings) -> ImageMetric | UnavailableMetric:
    """With the CLIP that the settings name.

    Raises:
        UserError: they name one that cannot be loaded.
    """
    if settings.clip is None:
        return _unavailable(f"no CLIP was named; {USAGE_HINT}")
    clip = load_clip(settings.clip)
    if not clip.can_embed_text:
        return _unavailable("the folder of CLIP holds no tokenizer; add it, or install open-clip-torch")

    def measure(picture: ImageArray, prompt: Prompt) -> MetricResult:
        if not prompt.prompt.strip():
            return MetricResult({NAME: None}, {})
        text_embedding = clip.embed_text(prompt.prompt)
        if text_embedding is None:
            return MetricResult({NAME: None}, {NAME: ("the prompt is longer than this CLIP reads",)})
        return MetricResult({NAME: cosine_similarity(clip.embed_image(picture), text_embedding)}, {})

    return ImageMetric(
        name=NAME,
        scores=(Score(name=NAME, title=f"{TITLE} [{clip.label}]"),),
        version=lambda: clip.version,
        measure=measure,
    )


def _unavailable(reason: str) -> UnavailableMetric:
    return UnavailableMetric(NAME, (Score(name=NAME, title=TITLE),), reason)
