"""Reads the lines of text in an image with RapidOCR and the models that come with its package."""

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
MIN_SIDE = 512  # smaller images are upscaled to this: the detector misses letters of 10 pixels
_THREAD_LOCAL = threading.local()


class TextBox(NamedTuple):
    """A piece of text and its axis-aligned bounding box, in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    text: str


def recognize_lines(image: ImageArray) -> list[str]:
    """Returns the lines of text in an image, from top to bottom."""
    result = _get_engine()(upscale(image)[..., ::-1])  # the engine takes BGR
    if result.boxes is None or result.txts is None:
        return []
    return group_into_lines([_make_box(corners, text) for corners, text in zip(result.boxes, result.txts, strict=True)])


def get_version() -> str:
    """Returns the versions of the engine and of the packages that its results depend on."""
    names = ("rapidocr", "onnxruntime", "opencv-python-headless")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def upscale(image: ImageArray) -> ImageArray:
    """Upscales an image, bicubic, so that its shorter side has at least `MIN_SIDE` pixels."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = MIN_SIDE / min(height, width)
    if scale <= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def group_into_lines(boxes: Sequence[TextBox]) -> list[str]:
    """Joins the texts of boxes that are side by side, from left to right. The lines are sorted from top to bottom."""
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


def _share_line(a: TextBox, b: TextBox) -> bool:
    """Returns whether two boxes overlap vertically by more than half the height of the lower one."""
    overlap = min(a.bottom, b.bottom) - max(a.top, b.top)
    return overlap > 0.5 * min(a.bottom - a.top, b.bottom - b.top)


def _get_engine() -> Any:
    """Returns the thread's engine, which uses a single core.

    Two such threads are faster than one engine on two cores, whose worker threads busy-wait. No options are passed to
    calls, because RapidOCR would keep them for later calls.
    """
    from rapidocr import RapidOCR

    if not hasattr(_THREAD_LOCAL, "engine"):
        _THREAD_LOCAL.engine = RapidOCR(params=ENGINE_OPTIONS)
    return _THREAD_LOCAL.engine
