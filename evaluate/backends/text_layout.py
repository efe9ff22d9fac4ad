"""Reads the text that a prompt asks for, and judges how it lies: its angle, whether it is mirrored, place and height.

Text that lies otherwise than it should does not count as read, and a remark says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...prompts.prompt import Prompt
from ..images.suitability import require_compact
from ..images.types import ImageArray
from .ocr import TextBox, group_into_lines, read_again, read_boxes, read_turned
from .text_matching import normalize_text, score_text, similarity

READ = 0.5  # similarity to an expected line from which on it was read, if imperfectly
MISPLACED = 0.75  # the same for text that must be turned or mirrored to be read
NEARLY = 10  # degrees: such an angle is called by the nearest quarter turn


class TextReading(NamedTuple):
    """What was read in an image, and what of it counts.

    Attributes:
        boxes: All text, also what does not count.
        lines: The lines that count.
        remarks: What is wrong with text that the prompt asks for: a reason, and after a colon the text.
    """

    boxes: tuple[TextBox, ...]
    lines: tuple[str, ...]
    remarks: tuple[str, ...]


def read_text(image: ImageArray, prompt: Prompt) -> TextReading:
    """Reads an image. A missing line is looked for at another scale and in pieces, then turned or mirrored.

    Raises:
        UnsuitableImageError: The image is so elongated that it cannot be upscaled to the size that OCR needs.
    """
    require_compact(image, "OCR would have to enlarge it too much")
    turns = (prompt.angle or 0) // 90
    upright = np.ascontiguousarray(np.rot90(image, turns))
    reading = _read_upright(upright, _Expectation(prompt, image.shape[0]))
    boxes = reading.boxes
    for turn in range(turns):
        boxes = tuple(_turn_clockwise(box, upright.shape[turn % 2]) for box in boxes)
    return reading._replace(boxes=boxes)


def _read_upright(image: ImageArray, expectation: _Expectation) -> TextReading:
    height, width = image.shape[:2]
    reading = expectation.judge(read_boxes(image), height, width)
    if not expectation.misses_line(reading):
        return reading
    for boxes in read_again(image):
        reading = max(reading, expectation.judge(boxes, height, width), key=lambda each: expectation.rate(each.lines))
        if not expectation.misses_line(reading):
            return reading
    return expectation.judge(_add_misplaced(image, reading.boxes, expectation), height, width)


def _add_misplaced(image: ImageArray, boxes: Sequence[TextBox], expectation: _Expectation) -> list[TextBox]:
    """Adds text that can be read if it is turned or mirrored, in place of what was read there."""
    boxes = list(boxes)
    for variants in read_turned(image):
        best = max(variants, key=lambda box: expectation.find_similarity(box.text))
        replaced = [box for box in boxes if _contains(best, box)]
        known = max((expectation.find_similarity(box.text) for box in replaced), default=0.0)
        if expectation.find_similarity(best.text) >= max(MISPLACED, known + 0.01):
            boxes = [*(box for box in boxes if box not in replaced), best]
    return boxes


def _contains(box: TextBox, inner: TextBox) -> bool:
    x, y = inner.center
    return box.left <= x <= box.right and box.top <= y <= box.bottom


def _turn_clockwise(box: TextBox, height: int) -> TextBox:
    """Returns a box of an image with this height as it lies after a quarter turn of the image."""
    return box._replace(
        left=height - box.bottom,
        top=box.left,
        right=height - box.top,
        bottom=box.right,
        angle=(box.angle + 90) % 360,
    )


@dataclass(frozen=True)
class _Expectation:
    """What a prompt asks for. Boxes are those of the image after it was turned so that its text should be upright.

    Attributes:
        prompt: The prompt.
        image_height: Height of the image before it was turned, in pixels.
    """

    prompt: Prompt
    image_height: int

    def judge(self, boxes: Sequence[TextBox], height: int, width: int) -> TextReading:
        """Separates what counts from what does not, in an image of this size."""
        reasons = [self._find_reason(box, height, width) for box in boxes]
        judged = list(zip(boxes, reasons, strict=True))
        lines = group_into_lines([box for box, reason in judged if reason is None])
        remarks = [
            f"{reason}: {box.text}" for box, reason in judged if reason and self.find_similarity(box.text) >= READ
        ]
        return TextReading(tuple(boxes), tuple(lines), (*remarks, *self._find_repeated(lines)))

    def misses_line(self, reading: TextReading) -> bool:
        """Returns whether next to nothing was read of an expected line, or its characters in another order.

        A line that was read and does not count is not missing.
        """
        lines = (*reading.lines, *(remark.partition(": ")[2] for remark in reading.remarks))
        recognized = self._normalize(lines)
        for expected, line in zip(self.prompt.lines, self._normalize(self.prompt.lines), strict=True):
            candidates = (*recognized, "".join(recognized))
            if line and line not in candidates[-1] and max(similarity(line, text) for text in candidates) < READ:
                recall = score_text([expected], lines, self.prompt.language)["text_accuracy"]
                if self.prompt.language == "zh" or not recall or recall < READ:
                    return True
        return False

    def rate(self, lines: Sequence[str]) -> tuple[float, float]:
        """Returns text accuracy and similarity, to compare readings of the same image."""
        scores = score_text(self.prompt.lines, lines, self.prompt.language)
        return scores["text_accuracy"] or 0.0, scores["ned"] or 0.0

    def find_similarity(self, text: str) -> float:
        """Returns how much a text is like the expected line that it is most like, in 0..1."""
        (normalized,) = self._normalize([text])
        expected = [line for line in self._normalize(self.prompt.lines) if line]
        return max((similarity(normalized, line) for line in (*expected, "".join(expected))), default=0.0)

    def _find_reason(self, box: TextBox, height: int, width: int) -> str | None:
        """Returns why a text does not count, or None."""
        if box.mirrored:
            return "read, but mirrored"
        if not box.is_upright:
            quarter = 90 * round(box.angle / 90)
            return f"read, but turned by {quarter if abs(box.angle - quarter) <= NEARLY else box.angle}°"
        region, (x, y) = self._turn_region(), box.center
        if region and not (region[0] <= x / width <= region[2] and region[1] <= y / height <= region[3]):
            return "read, but outside of the region asked for"
        line_height = min(box.right - box.left, box.bottom - box.top) / self.image_height
        limits = self.prompt.text_height
        if limits and not limits[0] <= line_height <= limits[1]:
            return "read, but smaller than asked for" if line_height < limits[0] else "read, but larger than asked for"
        return None

    def _find_repeated(self, lines: Sequence[str]) -> Iterator[str]:
        """Yields a remark for each expected line that was read more often than it was asked for."""
        recognized, expected = self._normalize(lines), self._normalize(self.prompt.lines)
        for line, normalized in dict(zip(self.prompt.lines, expected, strict=True)).items():
            if normalized and recognized.count(normalized) > expected.count(normalized):
                yield f"read {recognized.count(normalized)} times, not {expected.count(normalized)}: {line}"

    def _normalize(self, lines: Sequence[str]) -> list[str]:
        """Returns lines as they are compared, without spaces."""
        return ["".join(normalize_text(line, self.prompt.language).split()) for line in lines]

    def _turn_region(self) -> tuple[float, float, float, float] | None:
        """Returns the region as it lies in the turned image."""
        region = self.prompt.region
        for _ in range((self.prompt.angle or 0) // 90):
            if region:
                left, top, right, bottom = region
                region = top, 1 - right, bottom, 1 - left
        return region
