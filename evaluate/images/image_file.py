"""Reads image files, and records the content hash, size and defect of each.

What a file says about its pixels is applied if the result is certain: orientation (EXIF), palette, and color profile,
which is converted to sRGB. What a conversion would flatten, clip or choose from is refused: transparency, more than 8
bits per channel, CMYK, and several frames. So are images of too many pixels, before they are decoded. docs/evaluate.md
states these rules.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ...common.errors import UserError
from ...common.file_names import require_utf8
from .color_profile import ColorProfileError, convert_to_srgb
from .defects import Defect, detect_defect
from .file_problems import find_color_problem, find_file_problem
from .types import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = {  # by Pillow's name; MPO is a JPEG with further images, such as a preview
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
# Images as well, but not read: Pillow would decode them with 8 bits only, or needs plugins, or they are rare.
UNSUPPORTED_SUFFIXES = (
    *(".avif", ".avifs", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".exr", ".hdr"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".icb", ".vda", ".vst", ".pcx", ".dcx", ".dds", ".dib", ".psd"),
    *(".ico", ".cur", ".icns", ".sgi", ".bw", ".rgb", ".rgba", ".ras", ".qoi", ".xbm", ".xpm", ".im", ".msp", ".blp"),
    *(".fits", ".fit", ".ftc", ".ftu", ".fli", ".flc", ".iim", ".palm", ".pxr", ".gbr", ".pcd", ".eps", ".wmf", ".emf"),
)
IMAGE_SUFFIXES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *UNSUPPORTED_SUFFIXES)
NAN_TAG = "edgepress-nan"  # PNG text of an image some of whose pixels were NaN
TRUNCATION_TAG = "edgepress-cut"  # PNG text of an image whose prompt was truncated; the value says how

LoadFailure = str
"""Why an image could not be read: `missing`, or `unreadable (reason)`."""

OPAQUE = 255  # alpha
MAX_PIXELS = 89_478_485  # Pillow warns of more: a small file can claim to have them
TOO_LARGE = f"more than {MAX_PIXELS:,} pixels"
DEEP_RAW_MODE = re.compile(";16[BLN]")  # of Pillow's decoders: 16 bits per channel; BGR;16 has 16 bits per pixel
_WARNINGS_LOCK = Lock()  # the filters of warnings are those of all threads


class UnreadableImageError(UserError):
    """A file that is not a readable 8-bit image.

    Args:
        file: The file.
        reason: Why it is not accepted.
    """

    def __init__(self, file: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{file} is not a readable image ({reason}). Only still 8-bit RGB or grayscale images without transparency "
            "are supported. Replace it; if it is a cached image, delete it."
        )


@dataclass(frozen=True)
class ImageRecord:
    """What an evaluation needs to know about an image file before it is scored.

    Attributes:
        file: Path of the file.
        digest: SHA-256 of the image's shape and pixels. It does not depend on the file format.
        height: Height in pixels.
        width: Width in pixels.
        defect: Why the image shows nothing, or None.
        truncation_notice: A sentence that says which part of the prompt was not used, or an empty string.
    """

    file: Path
    digest: str
    height: int
    width: int
    defect: Defect | None
    truncation_notice: str = ""

    @property
    def size(self) -> str:
        """Width and height, such as `1024x768`."""
        return f"{self.width}x{self.height}"


def load_image(file: Path) -> ImageArray:
    """Reads an image as it is displayed, as RGB in sRGB.

    Raises:
        UnreadableImageError: The file is not a supported image.
    """
    return _load_with_tags(file)[0]


def load_record(file: Path | None) -> ImageRecord | LoadFailure:
    """Reads an image and describes it.

    Args:
        file: Path of the image, or None if there is no such image.

    Returns:
        The record, or why the image could not be read.
    """
    if file is None or not file.exists():
        return "unreadable (a link to nothing)" if file is not None and file.is_symlink() else "missing"
    if not file.is_file():  # reading a pipe would never end
        return "unreadable (not a file)"
    try:
        image, tags = _load_with_tags(file)
    except UnreadableImageError as error:
        return f"unreadable ({error.reason})"
    height, width = image.shape[:2]
    defect: Defect | None = "nan" if NAN_TAG in tags else detect_defect(image)
    return ImageRecord(file, hash_image(image), height, width, defect, tags.get(TRUNCATION_TAG, ""))


def hash_image(image: ImageArray) -> str:
    """Returns the SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def list_images(folder: Path) -> dict[str, Path]:
    """Lists the image files directly in a folder.

    Returns:
        The files by stem, sorted by file name. Letters with accents are composed, which macOS takes apart.

    Raises:
        UserError: Two images have the same stem, such as a.png and a.jpg, or a name is not UTF-8.
    """
    images: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            require_utf8(str(file))
            stem = _compose(file.stem)
            if stem in images:
                raise UserError(f"{folder} contains both {images[stem].name} and {file.name}. Keep only one of them.")
            images[stem] = file
    return images


def get_image_stem(prompt_id: str, seed: int, num_seeds: int) -> str:
    """Returns the file stem of an external image: the prompt id, or `<id>-<seed>` if there are several seeds."""
    return _compose(f"{prompt_id}-{seed}" if num_seeds > 1 else prompt_id)


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _load_with_tags(file: Path) -> tuple[ImageArray, dict[str, str]]:
    """Reads an image, and the text that edgepress stored in the file with it."""
    from PIL import Image, ImageOps

    try:
        with _open_header(file) as opened:
            tags = {tag: str(opened.info[tag]) for tag in (NAN_TAG, TRUNCATION_TAG) if tag in opened.info}
            reason = _find_format_problem(opened) or find_color_problem(file)
            if not reason:
                opened.load()  # a TIFF is turned by this, the others by exif_transpose
                image = np.asarray(_convert_to_rgb(ImageOps.exif_transpose(opened)))
    except ColorProfileError as error:
        raise UnreadableImageError(file, str(error)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(file, TOO_LARGE) from error
    except Exception as error:  # Pillow's readers raise anything for damaged files
        raise UnreadableImageError(file, find_file_problem(file)) from error
    if reason:
        raise UnreadableImageError(file, reason)
    return image, tags


def _open_header(file: Path) -> ImageFile:
    """Opens an image without decoding it, and without Pillow's warning of many pixels."""
    from PIL import Image

    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


def _convert_to_rgb(image: Image) -> Image:
    """Returns an opaque image as RGB in sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode == "P" and image.has_transparency_data:  # Pillow warns of a palette with several alphas
        image = image.convert("RGBA")
    if not profile:
        return image.convert("RGB")
    return convert_to_srgb(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), profile)


def _find_format_problem(image: ImageFile) -> str:
    """Returns why Pillow would clip, drop or flatten data of an image when it converts it to RGB, or nothing."""
    if image.format not in FORMATS:
        return f"format {image.format}"
    if image.width * image.height > MAX_PIXELS:
        return TOO_LARGE
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1 and image.format != "MPO":
        return f"{num_frames} frames"
    if image.mode.startswith(("I", "F")) or any(DEEP_RAW_MODE.search(str(tile[3])) for tile in image.tile):
        return "more than 8 bits per channel"
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return f"mode {image.mode}"
    if not image.has_transparency_data:
        return ""
    min_alpha = image.convert("RGBA").getchannel("A").getextrema()[0]
    return "" if min_alpha == OPAQUE else "transparent"
