"""CLIP-T: cosine similarity of the CLIP embeddings of an image and its prompt, neither clamped nor multiplied by 100.

Prompts that are longer than the context of the CLIP model are not scored, because CLIP would only see their beginning.
A model that was trained on English text says little about Chinese prompts.
"""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends.clip.embedder import cosine_similarity, load_clip
from ..backends.clip.spec import USAGE_HINT
from ..images.types import ImageArray
from .base import ImageMetric, MetricResult, MetricSettings, Score, UnavailableMetric

NAME, TITLE = "clip_t", "CLIP-T"


def create_metric(settings: MetricSettings) -> ImageMetric | UnavailableMetric:
    """Creates the metric with the CLIP model of the settings.

    Raises:
        UserError: The CLIP model cannot be loaded.
    """
    if settings.clip is None:
        return _make_unavailable(f"no CLIP model was given; {USAGE_HINT}")
    clip = load_clip(settings.clip)
    if not clip.can_embed_text:
        return _make_unavailable("the CLIP folder contains no tokenizer; add it, or install open-clip-torch")

    def measure(image: ImageArray, prompt: Prompt) -> MetricResult:
        if not prompt.prompt.strip():
            return MetricResult({NAME: None}, {})
        text_embedding = clip.embed_text(prompt.prompt)
        if text_embedding is None:
            return MetricResult({NAME: None}, {NAME: ("the prompt is longer than the context of this CLIP model",)})
        return MetricResult({NAME: cosine_similarity(clip.embed_image(image), text_embedding)}, {})

    return ImageMetric(
        name=NAME,
        scores=(Score(name=NAME, title=f"{TITLE} [{clip.label}]"),),
        version=lambda: clip.version,
        measure=measure,
    )


def _make_unavailable(reason: str) -> UnavailableMetric:
    return UnavailableMetric(NAME, (Score(name=NAME, title=TITLE),), reason)
