"""Text accuracy: the picture is read by OCR and compared with the lines that the prompt asks for."""

from __future__ import annotations

from ...prompts import Prompt
from .. import ocr
from ..registry import Picture, PictureMetric, Reading, Score, Settings
from ..text_scores import score_text

SCORES = (
    Score(name="text_accuracy", title="text accuracy", unit="%"),
    Score(name="exact", title="exact text", unit="%", binary=True),
    Score(name="ned", title="1 - NED", unit="%"),
)
SCORING = 1  # to be raised when text_scores.py counts otherwise, or lines are joined otherwise


def _version() -> str:
    return f"{ocr.version()}, scoring {SCORING}"


def _measure(picture: Picture, prompt: Prompt) -> Reading:
    """The scores, and the lines that were read; a prompt that asks for no text has no scores."""
    if not prompt.lines:
        return Reading({score.name: None for score in SCORES}, {})
    lines = ocr.read(picture)
    return Reading(dict(score_text(prompt.lines, lines, prompt.language)), {"read": tuple(lines)})


def make(_settings: Settings) -> PictureMetric:
    return PictureMetric(name="text", scores=SCORES, version=_version, measure=_measure)
