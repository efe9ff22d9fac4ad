"""Reads the lines of text in a picture, with RapidOCR and the models that its wheel carries."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..images.types import ImageArray

ENGINE_OPTIONS = {
    "Global.use_cls": False,
    "Global.log_level": "critical",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}
_THREAD_LOCAL = threading.local()
MIN_SIDE = 512  # smaller pictures are enlarged to this: the detector was not made for letters of 10 pixels


class TextBox(NamedTuple):
    """A piece of text and the upright rectangle around it, in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    text: str


def recognize_lines(picture: ImageArray) -> list[str]:
    """The lines of text, top to bottom."""
    found = _get_engine()(upscale(picture)[..., ::-1])  # the engine wants BGR
    if found.boxes is None or found.txts is None:
        return []
    return group_into_lines([_make_box(corners, text) for corners, text in zip(found.boxes, found.txts, strict=True)])


def get_version() -> str:
    """The engine and all that its reading depends on."""
    names = ("rapidocr", "onnxruntime", "opencv-python-headless")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def upscale(picture: ImageArray) -> ImageArray:
    """The picture with a shorter side of at least `SHORTER_SIDE`, bicubic."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = MIN_SIDE / min(height, width)
    if scale <= 1:
        return picture
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def group_into_lines(boxes: Sequence[TextBox]) -> list[str]:
    """Texts of boxes that stand side by side are joined, left to right; the lines come top to bottom."""
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: box.top + box.bottom):
        if lines and _share_line(lines[-1][0], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    return [" ".join(box.text for box in sorted(line, key=lambda box: box.left)) for line in lines]


def _make_box(corners: npt.NDArray[np.float32], text: str) -> TextBox:
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return TextBox(float(left), float(top), float(right), float(bottom), text)


def _share_line(one: TextBox, other: TextBox) -> bool:
    """More than half of the lower box's height is shared."""
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    return shared > 0.5 * min(one.bottom - one.top, other.bottom - other.top)


def _get_engine() -> Any:
    """One engine a thread, on one core: two threads read faster than one on two cores, whose helpers wait busily.

    Options given to a call of RapidOCR would stick for the next, so that none are given.
    """
    from rapidocr import RapidOCR

    if not hasattr(_THREAD_LOCAL, "engine"):
        _THREAD_LOCAL.engine = RapidOCR(params=ENGINE_OPTIONS)
    return _THREAD_LOCAL.engine
