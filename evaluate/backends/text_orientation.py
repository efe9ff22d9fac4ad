"""Tells which way text lies in an image: upright, turned, or running downwards with upright characters.

RapidOCR reads a tall box after turning it, and often recognizes a line that stands on its head. A reading alone
therefore does not say which way the text lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...prompts.prompt import is_cjk
from ..images.types import ImageArray
from .ocr_engine import Corners, Reading, crop_box, is_tall, is_upside_down, lay_flat, recognize_line
from .text_matching import normalize_text, similarity

CONFIDENT = 0.95  # a line that is read with more confidence is upright, or the same when turned, such as SOS
MARGIN = 0.02  # by which the confidence must rise if a line is turned
# How much of a column must be read from its characters side by side to be one. Chinese is often written downwards.
COLUMN_SIMILARITY = {"Chinese": 0.5, "other": 0.75}


class TurnedReading(NamedTuple):
    """A piece of text as it is read after it was turned or mirrored.

    Attributes:
        text: The text.
        confidence: Mean probability of its characters, in 0..1.
        angle: How far it is turned in the image, clockwise, in degrees, 0..359.
        mirrored: Whether it is mirrored in the image.
    """

    text: str
    confidence: float
    angle: int
    mirrored: bool = False


def find_orientation(image: ImageArray, reading: Reading) -> TurnedReading:
    """Returns how a piece of text lies that was read in an image, and its text if it is turned to be upright."""
    crop = crop_box(image, reading.corners)
    line, angle = lay_flat(crop), _get_tilt(reading.corners)
    if reading.confidence < CONFIDENT and is_upside_down(line):
        text, confidence = recognize_line(np.rot90(line, 2))
        if confidence > reading.confidence + MARGIN:
            return TurnedReading(text, confidence, (angle + (270 if is_tall(crop) else 180)) % 360)
    if is_tall(crop) and not _is_column(crop, reading.text):
        angle += 90
    return TurnedReading(reading.text, reading.confidence, angle % 360)


def read_otherwise(image: ImageArray, corners: Corners) -> Iterator[TurnedReading]:
    """Yields what a box says if its text is taken to be turned or mirrored."""
    crop = crop_box(image, corners)
    line = lay_flat(crop)
    angle = _get_tilt(corners) + (90 if is_tall(crop) else 0)
    for variant, turn, mirrored in (
        (line, 0, False),
        (line[::-1, ::-1], 180, False),
        (line[:, ::-1], 0, True),
        (line[::-1], 180, True),
    ):
        if turn or mirrored or is_tall(crop):
            text, confidence = recognize_line(variant)
            yield TurnedReading(text, confidence, (angle + turn) % 360, mirrored)


def _is_column(crop: ImageArray, text: str) -> bool:
    """Returns whether the characters of a tall box are upright: side by side, they must read like the text."""
    characters = normalize_text(text, "zh")
    if not characters:
        return True
    height, count = len(crop), len(characters)
    cell = height // count
    cells = [crop[top : top + cell] for top in (round(index * height / count) for index in range(count))]
    side_by_side, _ = recognize_line(np.hstack([part for part in cells if len(part) == cell]))
    kind = "Chinese" if any(map(is_cjk, characters)) else "other"
    return similarity(normalize_text(side_by_side, "zh"), characters) >= COLUMN_SIMILARITY[kind]


def _get_tilt(corners: Corners) -> int:
    """Returns how far the upper edge of a box falls to the right, in degrees."""
    x, y = (corners[1] - corners[0]).tolist()
    return round(math.degrees(math.atan2(y, x)))
