"""Reads the text in an image: where it is, how it is turned, and its lines.

Good images are read once. What is only needed if a text is missing, which is a second scale, pieces, and turned or
mirrored text, are functions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..images.types import ImageArray
from .ocr_engine import Corners, Reading, crop_box, detect_text, lay_flat, read_image, recognize_line
from .text_orientation import TurnedReading, find_orientation, read_otherwise

MIN_SIDE = 512  # smaller images are upscaled to this: the detector misses letters of 10 pixels
LARGE = 768  # of an image with a shorter side from here on, a copy with `MIN_SIDE` is a second scale
ELONGATED = 4  # of longer to shorter side: from here on, there are pieces
PIECE, STEP = 4, 3  # length of a piece and distance to the next, in shorter sides
MARGIN = 4  # of a piece to the next on the sheet: one such part of the shorter side
SHARED = 0.2  # of the smaller of two boxes: if they share more, they are parts of one text


class TextBox(NamedTuple):
    """A piece of text and its axis-aligned bounding box, in pixels.

    Attributes:
        left: Left edge.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
        text: The text.
        confidence: Mean probability of its characters, in 0..1.
        angle: How far it is turned, clockwise, in degrees, 0..359. A column of upright characters is not turned.
        mirrored: Whether it is mirrored.
    """

    left: float
    top: float
    right: float
    bottom: float
    text: str
    confidence: float = 1.0
    angle: int = 0
    mirrored: bool = False

    @property
    def center(self) -> tuple[float, float]:
        """x and y of the center."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def is_upright(self) -> bool:
        """Whether the text is readable as it is: not mirrored, and turned by at most 45 degrees."""
        return not self.mirrored and min(self.angle, 360 - self.angle) <= 45


def read_boxes(image: ImageArray) -> list[TextBox]:
    """Returns all text in an image."""
    scaled = upscale(image)
    scale = len(scaled) / len(image)
    readings = read_image(scaled)
    return [_make_box(reading.corners / scale, find_orientation(scaled, reading)) for reading in readings]


def read_again(image: ImageArray) -> Iterator[list[TextBox]]:
    """Yields further readings of an image in which the first one missed text.

    The detector misses short words on a flat ground in large images, and small ones in elongated images. The former are
    read at a second, smaller scale, the latter in pieces.
    """
    height, width = image.shape[:2]
    if min(height, width) >= LARGE:
        scale = MIN_SIDE / min(height, width)
        yield [_scale_box(box, 1 / scale) for box in read_boxes(_resize(image, scale))]
    if max(height, width) >= ELONGATED * min(height, width):
        yield _read_pieces(image)


def read_turned(image: ImageArray) -> Iterator[list[TextBox]]:
    """Yields, for each box of text in an image, what it says if it is taken to be turned or mirrored."""
    scaled = upscale(image)
    scale = len(scaled) / len(image)
    for corners in detect_text(scaled):
        yield [_make_box(corners / scale, reading) for reading in read_otherwise(scaled, corners)]


def recognize_lines(image: ImageArray) -> list[str]:
    """Returns the upright lines of text in an image, from top to bottom."""
    return group_into_lines([box for box in read_boxes(image) if box.is_upright])


def upscale(image: ImageArray) -> ImageArray:
    """Upscales an image, bicubic, so that its shorter side has at least `MIN_SIDE` pixels."""
    scale = MIN_SIDE / min(image.shape[:2])
    return image if scale <= 1 else _resize(image, scale)


def group_into_lines(boxes: Sequence[TextBox]) -> list[str]:
    """Joins the texts of boxes that are side by side, from left to right. The lines are sorted from top to bottom."""
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: box.top + box.bottom):
        if lines and _share_line(lines[-1][0], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    return [" ".join(box.text for box in sorted(line, key=lambda box: box.left)) for line in lines]


def _make_box(corners: Corners, reading: TurnedReading) -> TextBox:
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return TextBox(left, top, right, bottom, *reading)


def _share_line(a: TextBox, b: TextBox) -> bool:
    """Returns whether two boxes overlap vertically by more than half the height of the lower one."""
    overlap = min(a.bottom, b.bottom) - max(a.top, b.top)
    return overlap > 0.5 * min(a.bottom - a.top, b.bottom - b.top)


# ---------------------------------------------------------------- scales and pieces


def _resize(image: ImageArray, scale: float) -> ImageArray:
    from PIL import Image

    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _read_pieces(image: ImageArray) -> list[TextBox]:
    """Reads an elongated image cut into overlapping pieces, which are put on one sheet.

    What lies in several pieces is joined and read as a whole.
    """
    is_wide, side = image.shape[1] > image.shape[0], min(image.shape[:2])
    starts = [*range(0, max(image.shape[:2]) - PIECE * side, STEP * side), max(image.shape[:2]) - PIECE * side]
    pieces = [image[:, x : x + PIECE * side] if is_wide else image[x : x + PIECE * side] for x in starts]
    margin = side // MARGIN + 1
    margins = ((0, margin), (0, 0), (0, 0)) if is_wide else ((0, 0), (0, margin), (0, 0))
    sheet = np.concatenate([np.pad(piece, margins, "edge") for piece in pieces], axis=0 if is_wide else 1)
    boxes = []
    for box in read_boxes(sheet):
        number = int(box.center[1 if is_wide else 0] // (side + margin))
        offset = (starts[number], -number * (side + margin))
        boxes.append(_move_box(box, *(offset if is_wide else offset[::-1])))
    return [group[0] if len(group) == 1 else _read_union(image, group) for group in _group_overlapping(boxes)]


def _read_union(image: ImageArray, boxes: Sequence[TextBox]) -> TextBox:
    """Reads the smallest box around boxes as one line."""
    left, top = min(box.left for box in boxes), min(box.top for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    scaled = upscale(image)
    scale = len(scaled) / len(image)
    reading = Reading(corners * scale, *recognize_line(lay_flat(crop_box(scaled, corners * scale))))
    return _make_box(corners, find_orientation(scaled, reading))


def _group_overlapping(boxes: Sequence[TextBox]) -> list[list[TextBox]]:
    """Groups boxes that overlap, directly or through others."""
    groups: list[list[TextBox]] = []
    for box in boxes:
        touching = [group for group in groups if any(_overlap(box, member) for member in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([box, *(member for group in touching for member in group)])
    return groups


def _overlap(a: TextBox, b: TextBox) -> bool:
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    smaller = min((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width > 0 and height > 0 and width * height > SHARED * smaller


def _move_box(box: TextBox, x: float, y: float) -> TextBox:
    return box._replace(left=box.left + x, top=box.top + y, right=box.right + x, bottom=box.bottom + y)


def _scale_box(box: TextBox, scale: float) -> TextBox:
    return box._replace(left=box.left * scale, top=box.top * scale, right=box.right * scale, bottom=box.bottom * scale)
