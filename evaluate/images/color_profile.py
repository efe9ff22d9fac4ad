"""Converts images from the color space of an embedded ICC profile to sRGB, the color space of all metrics."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

# How far, in levels of 8 bits, colors may move by a profile of sRGB: the curve is a table in some, a formula in others.
MAX_SRGB_SHIFT = 2


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
    if _is_srgb(profile):
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


@lru_cache(maxsize=16)  # the images of a folder mostly have the same profile
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile describes sRGB itself, by what it does to colors: names such as "Linear sRGB" do not tell."""
    from PIL import Image, ImageCms

    levels = np.arange(256, dtype=np.uint8)
    grays, zeros = np.stack([levels] * 3, axis=-1), np.zeros((256, 1), np.uint8)
    ramps = [np.concatenate([zeros] * n + [levels[:, None]] + [zeros] * (2 - n), axis=-1) for n in range(3)]
    colors = np.stack([grays, *ramps])  # [4, 256, 3]: gray, red, green and blue
    try:
        converted = ImageCms.profileToProfile(
            Image.fromarray(colors),
            ImageCms.getOpenProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except (OSError, ImageCms.PyCMSError):
        return False  # a profile of other images; the conversion says so
    return int(np.abs(np.asarray(converted).astype(int) - colors).max()) <= MAX_SRGB_SHIFT
