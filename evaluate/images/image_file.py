"""Reads pictures from files, and says of each what it is: its content, size, and whether it shows nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.errors import UserError
from .defects import Defect, detect_defect
from .types import ImageArray

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NAN_TAG = "edgepress-nan"  # the PNG text of a picture some of whose pixels were no number
TRUNCATION_TAG = "edgepress-cut"  # that of one whose prompt was not read to its end: what was cut

LoadFailure = str  # `missing`, or `unreadable` with what is in the way, if that is known
OPAQUE = 255


class UnreadableImageError(UserError):
    """A file that holds no picture as pipelines paint them. reason: what is in the way, or nothing."""

    def __init__(self, file: Path, reason: str = "") -> None:
        self.reason = reason
        known = f" ({reason}); 8-bit RGB or grey without transparency is read" if reason else ""
        super().__init__(f"{file} is no readable picture{known}; make it anew (if it is a cached one, delete it).")


@dataclass(frozen=True)
class ImageRecord:
    """A picture's file; `digest` is that of its pixels and size, whatever format they are kept in.

    cut: what was left out of the prompt that it was painted from, in a sentence.
    """

    file: Path
    digest: str
    height: int
    width: int
    defect: Defect | None
    truncation_notice: str = ""

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def load_image(file: Path) -> ImageArray:
    """An RGB picture; what 8 bits a colour cannot hold, or what can be seen through, is refused and never flattened.

    Raises:
        UserError: no picture can be read from the file.
    """
    return _load_with_tags(file)[0]


def load_record(file: Path | None) -> ImageRecord | LoadFailure:
    """What a file holds, or why it holds no picture; None stands for a file that is not there."""
    if file is None or not file.exists():
        return "missing"
    try:
        picture, said = _load_with_tags(file)
    except UnreadableImageError as error:
        return f"unreadable ({error.reason})" if error.reason else "unreadable"
    height, width = picture.shape[:2]
    defect: Defect | None = "nan" if NAN_TAG in said else detect_defect(picture)
    return ImageRecord(file, hash_image(picture), height, width, defect, said.get(TRUNCATION_TAG, ""))


def hash_image(picture: ImageArray) -> str:
    """SHA-256 of shape and pixels."""
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def list_images(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by stem, in the order of their names; folders below it are not looked at.

    Raises:
        UserError: two pictures have one stem, such as a.png and a.jpg.
    """
    images: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in images:
                raise UserError(f"{folder} holds {images[file.stem].name} and {file.name}; leave one of them.")
            images[file.stem] = file
    return images


def get_image_stem(prompt: str, seed: int, seeds: int) -> str:
    """What a picture made elsewhere is called: by its prompt's id, where there are several seeds `<id>-<seed>`."""
    return f"{prompt}-{seed}" if seeds > 1 else prompt


def _load_with_tags(file: Path) -> tuple[ImageArray, dict[str, str]]:
    """The picture, and what its file says of it."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            said = {mark: str(image.info[mark]) for mark in (NAN_TAG, TRUNCATION_TAG) if mark in image.info}
            reason = _find_format_problem(image)
            picture = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(file) from error
    if reason:
        raise UnreadableImageError(file, reason)
    return picture, said


def _find_format_problem(image: ImageFile) -> str:
    """Why an opened picture is not what an 8-bit RGB one would be, or nothing; Pillow would clip, drop or cut it."""
    if image.mode.startswith(("I", "F")) or any(";16B" in str(tile[3]) for tile in image.tile):
        return "more than 8 bits a colour"
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        return f"of mode {image.mode}"
    if not image.has_transparency_data:
        return ""
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return "" if lowest == OPAQUE else "transparent"
