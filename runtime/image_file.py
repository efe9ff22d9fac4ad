"""Image files: PNG, JPEG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from PIL import Image, ImageOps, UnidentifiedImageError

from ..common.errors import UserError, summarize_error
from ..common.regular_files import require_regular

ImageFormat = Literal["png", "jpeg", "webp"]
FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
DEFAULT_QUALITY = 90
MAX_PIXELS = 2**24  # of an image to start from
SUFFIXES: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def encode_image(
    image: Image.Image,
    image_format: ImageFormat,
    quality: int = DEFAULT_QUALITY,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """Encodes an image.

    Args:
        image: An RGB image.
        image_format: The format of the file.
        quality: 1 to 100, for JPEG and WebP. PNG loses nothing.
        options: Further arguments of `Image.save`, such as `image_metadata.build_save_options` returns.

    Returns:
        The content of the file.
    """
    stream = BytesIO()
    if image_format == "png":
        image.save(stream, "PNG", **options)
    else:
        image.save(stream, image_format.upper(), quality=quality, **options)
    return stream.getvalue()


def read_image_file(file: Path, advice: str) -> Image.Image:
    """Reads an image file, as `read_image` does.

    Args:
        file: The file.
        advice: What to do if it cannot be read, as a sentence.

    Raises:
        UserError: It cannot be read, or is no image that `read_image` takes.
    """
    require_regular(file, advice)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {file} ({error.strerror}). {advice}") from error
    return read_image(content, f"The image {file}")


def read_image(content: bytes, name: str = "The image") -> Image.Image:
    """Reads an image, turned as its EXIF data say, in RGB.

    Args:
        content: The content of the file.
        name: What a message calls it.

    Raises:
        UserError: It is no PNG, JPEG or WebP image, is damaged, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(content), formats=[name.upper() for name in FORMATS]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{name} has {image.width} x {image.height} pixels. Give one of at most {MAX_PIXELS:,}."
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} has too many pixels. Give one of at most {MAX_PIXELS:,}.") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        is_unknown = isinstance(error, UnidentifiedImageError)  # the message would name an object in memory
        reason = "its format is unknown" if is_unknown else summarize_error(error)
        raise UserError(f"{name} cannot be read ({reason}). Give a PNG, JPEG or WebP file.") from error


def scale_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scales an image to a height and width in pixels, as diffusers does; one that has them stays the same."""
    return image.convert("RGB").resize(size[::-1], Image.Resampling.LANCZOS)


def media_type(image_format: ImageFormat) -> str:
    """The media type of a format, such as `image/png`."""
    return f"image/{image_format}"
