"""Image files: PNG, JPEG and WebP."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal, get_args

from PIL import Image

ImageFormat = Literal["png", "jpeg", "webp"]
FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
DEFAULT_QUALITY = 90
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


def media_type(image_format: ImageFormat) -> str:
    """The media type of a format, such as `image/png`."""
    return f"image/{image_format}"
