"""Runs RapidOCR with the models that come with its package: detection, recognition, and which way up a line is.

Corners are arrays of shape ``(4, 2)``: x and y in pixels of upper left, upper right, lower right and lower left corner
of a box as it lies in the image.
"""

from __future__ import annotations

import importlib.metadata
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..images.types import ImageArray

Corners = npt.NDArray[np.float32]

ENGINE_OPTIONS = {
    "Global.use_cls": False,
    "Global.log_level": "critical",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}
TALL = 1.5  # times as high as wide: RapidOCR turns such a box counterclockwise before it reads it
_THREAD_LOCAL = threading.local()


class Reading(NamedTuple):
    """A piece of text as it was read.

    Attributes:
        corners: Corners of its box.
        text: The text.
        confidence: Mean probability of its characters, in 0..1.
    """

    corners: Corners
    text: str
    confidence: float


def get_version() -> str:
    """Returns the versions of the engine and of the packages that its results depend on."""
    names = ("rapidocr", "onnxruntime", "opencv-python-headless")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def read_image(image: ImageArray) -> list[Reading]:
    """Finds and reads all text in an image."""
    result = _run(image, use_det=True, use_cls=False, use_rec=True)
    if result.boxes is None or result.txts is None:
        return []
    return [Reading(*fields) for fields in zip(result.boxes, result.txts, map(float, result.scores), strict=True)]


def detect_text(image: ImageArray) -> list[Corners]:
    """Returns the boxes of text in an image, whether it can be read or not."""
    boxes = _run(image, use_det=True, use_cls=False, use_rec=False).boxes
    return [] if boxes is None else list(boxes)


def recognize_line(line: ImageArray) -> tuple[str, float]:
    """Reads an image of a single horizontal line of text.

    Returns:
        The text, empty if there is none, and the confidence.
    """
    result = _run(line, use_det=False, use_cls=False, use_rec=True)
    return (result.txts[0].strip(), float(result.scores[0])) if result.txts else ("", 0.0)


def is_upside_down(line: ImageArray) -> bool:
    """Returns whether the classifier of angles takes an image of a single line to be turned by 180 degrees."""
    result = _run(line, use_det=False, use_cls=True, use_rec=False)
    label, probability = result.cls_res[0]
    return bool(label == "180" and probability >= 0.9)


def crop_box(image: ImageArray, corners: Corners) -> ImageArray:
    """Returns what is in a box, as it lies in the image, but without its tilt."""
    import cv2

    top, right, bottom, left = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = max(1, int(max(top, bottom))), max(1, int(max(right, left)))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(np.asarray(corners, np.float32), target)
    cropped: ImageArray = cv2.warpPerspective(
        image, transform, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC
    )
    return cropped


def lay_flat(crop: ImageArray) -> ImageArray:
    """Returns the content of a box as RapidOCR reads it: turned counterclockwise if it is tall."""
    return np.rot90(crop) if is_tall(crop) else crop


def is_tall(crop: ImageArray) -> bool:
    """Returns whether a box is so much higher than wide that its text is turned or runs downwards."""
    return bool(crop.shape[0] >= TALL * crop.shape[1])


def _run(image: ImageArray, **stages: bool) -> Any:
    """Runs stages of the thread's engine, which uses a single core.

    Two such threads are faster than one engine on two cores, whose worker threads busy-wait. RapidOCR keeps the options
    of a call for later calls, so every call states all of them.
    """
    from rapidocr import RapidOCR

    if not hasattr(_THREAD_LOCAL, "engine"):
        _THREAD_LOCAL.engine = RapidOCR(params=ENGINE_OPTIONS)
    return _THREAD_LOCAL.engine(np.ascontiguousarray(image[..., ::-1]), **stages)  # it takes BGR
