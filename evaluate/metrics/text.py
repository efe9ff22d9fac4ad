"""Text accuracy: OCR reads the image, and the result is compared with the lines that the prompt asks for."""

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
SCORING_VERSION = 1  # raise it when text_matching.py scores differently, or ocr.py joins lines differently


def create_metric(_settings: MetricSettings) -> ImageMetric:
    """Creates the metric."""
    return ImageMetric(name="text", scores=SCORES, version=_get_version, measure=_measure)


def _get_version() -> str:
    return f"{ocr.get_version()}, scoring {SCORING_VERSION}"


def _measure(image: ImageArray, prompt: Prompt) -> MetricResult:
    """Scores an image; the note `read` has the lines that OCR read. Without expected lines, all scores are None."""
    if not prompt.lines:
        return MetricResult({score.name: None for score in SCORES}, {})
    lines = ocr.recognize_lines(image)
    return MetricResult(dict(score_text(prompt.lines, lines, prompt.language)), {"read": tuple(lines)})
