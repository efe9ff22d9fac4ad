"""Converts images from the color space of an embedded ICC profile to sRGB, the color space of all metrics."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SRGB = "srgb"  # in the description of every sRGB profile


class ColorProfileError(Exception):
    """An embedded profile that is damaged or belongs to another kind of image. The message is the reason."""


def convert_to_srgb(image: Image, profile: bytes) -> Image:
    """Converts an image to sRGB, with the colorimetric intent. An image that is in sRGB already stays as it is.

    Args:
        image: The image, of mode `RGB` or `L`.
        profile: The embedded ICC profile.

    Returns:
        The image of mode `RGB`.

    Raises:
        ColorProfileError: The profile is damaged, or not one for such images.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(source).strip()
    except (OSError, ImageCms.PyCMSError) as error:
        raise ColorProfileError("damaged color profile") from error
    if SRGB in description.lower():
        return image.convert("RGB")
    try:
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(
            image, source, target, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (OSError, ImageCms.PyCMSError) as error:
        raise ColorProfileError(f"color profile {description!r} for another kind of image") from error
    if converted is None:
        raise ColorProfileError(f"color profile {description!r} cannot be applied")
    return converted
