"""Image files: PNG, JPEG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal, get_args

from PIL import Image, ImageOps, UnidentifiedImageError

from ..common.errors import UserError, summarize_error

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


def read_image(content: bytes) -> Image.Image:
    """Reads an image, turned as its EXIF data say, in RGB.

    Raises:
        UserError: It is no PNG, JPEG or WebP image, is damaged, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(content), formats=[name.upper() for name in FORMATS]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"The image has {image.width} x {image.height} pixels. Give one of at most {MAX_PIXELS:,}."
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        is_unknown = isinstance(error, UnidentifiedImageError)  # the message would name an object in memory
        reason = "its format is unknown" if is_unknown else summarize_error(error)
        raise UserError(f"The image cannot be read ({reason}). Give a PNG, JPEG or WebP file.") from error


def media_type(image_format: ImageFormat) -> str:
    """The media type of a format, such as `image/png`."""
    return f"image/{image_format}"
