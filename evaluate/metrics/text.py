"""Text accuracy: OCR reads the image, and the result is compared with the lines that the prompt asks for."""

from __future__ import annotations

from ...prompts.prompt import Prompt
from ..backends.ocr import TextBox
from ..backends.ocr_engine import get_version
from ..backends.text_layout import read_text
from ..backends.text_matching import score_text
from ..images.types import ImageArray
from .base import ImageMetric, MetricResult, MetricSettings, Score

SCORES = (
    Score(name="text_accuracy", title="text accuracy", unit="%"),
    Score(name="exact", title="exact text", unit="%", binary=True),
    Score(name="ned", title="1 - NED", unit="%"),
)
SCORING_VERSION = 2  # raise it when the same text scores differently


def create_metric(_settings: MetricSettings) -> ImageMetric:
    """Creates the metric."""
    return ImageMetric(name="text", scores=SCORES, version=_get_version, measure=_measure)


def _get_version() -> str:
    return f"{get_version()}, scoring {SCORING_VERSION}"


def _measure(image: ImageArray, prompt: Prompt) -> MetricResult:
    """Scores an image. Without expected lines, all scores are None.

    Notes: `read` has the lines that count, `boxes` all text with its place, and `remarks` what is wrong with text that
    the prompt asks for.
    """
    if not prompt.lines:
        return MetricResult({score.name: None for score in SCORES}, {})
    reading = read_text(image, prompt)
    notes = {"boxes": tuple(map(_describe_box, reading.boxes)), "remarks": reading.remarks}
    values = dict(score_text(prompt.lines, reading.lines, prompt.language))
    return MetricResult(values, {"read": reading.lines} | {name: lines for name, lines in notes.items() if lines})


def _describe_box(box: TextBox) -> str:
    """Returns the size and place of a text in pixels, its angle, the confidence, and the text."""
    size = f"{box.right - box.left:.0f}x{box.bottom - box.top:.0f}+{box.left:.0f}+{box.top:.0f}"
    return f"{size} {box.angle}°{' mirrored' if box.mirrored else ''} {box.confidence:.2f} {box.text}"
