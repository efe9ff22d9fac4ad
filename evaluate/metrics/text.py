"""Text accuracy: the picture is read by OCR and compared with the lines that the prompt asks for."""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends import ocr
from ..backends.text_matching import score_text
from ..images.types import ImageArray
from .base import ImageMetric, MetricResult, MetricSettings, Score

SCORES = (
    Score(name="text_accuracy", title="text accuracy", unit="%"),
    Score(name="exact", title="exact text", unit="%", binary=True),
    Score(name="ned", title="1 - NED", unit="%"),
)
SCORING_VERSION = 1  # to be raised when text_scores.py counts otherwise, or lines are joined otherwise


def _get_version() -> str:
    return f"{ocr.get_version()}, scoring {SCORING_VERSION}"


def _measure(picture: ImageArray, prompt: Prompt) -> MetricResult:
    """The scores, and the lines that were read; a prompt that asks for no text has no scores."""
    if not prompt.lines:
        return MetricResult({score.name: None for score in SCORES}, {})
    lines = ocr.recognize_lines(picture)
    return MetricResult(dict(score_text(prompt.lines, lines, prompt.language)), {"read": tuple(lines)})


def create_metric(_settings: MetricSettings) -> ImageMetric:
    return ImageMetric(name="text", scores=SCORES, version=_get_version, measure=_measure)
