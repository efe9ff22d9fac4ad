"""Text accuracy: the picture is read by OCR and compared with the lines that the prompt asks for."""

from __future__ import annotations

from ...prompts import Prompt
from .. import ocr
from ..registry import Picture, PictureMetric, Reading, Score
from ..text_scores import score_text

SCORES = (
    Score(name="text_accuracy", title="text accuracy", unit="%"),
    Score(name="exact", title="exact text", unit="%"),
    Score(name="ned", title="1 - NED", unit="%"),
)


def _measure(picture: Picture, prompt: Prompt) -> Reading:
    """The scores, and the lines that were read; a prompt that asks for no text has no scores."""
    if not prompt.lines:
        return Reading({score.name: None for score in SCORES}, {})
    lines = ocr.read(picture)
    return Reading(dict(score_text(prompt.lines, lines, prompt.language)), {"read": tuple(lines)})


METRIC = PictureMetric(name="text", scores=SCORES, version=ocr.version, measure=_measure)
