"""Latents in numpy: factors of a VAE's config, patches, and 8-bit images as a VAE takes and returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.validation import format_value

Latents = NDArray[np.float32]


def read_factor(config: Mapping[str, Any], key: str) -> np.float32:
    """A factor of latents.

    Raises:
        ValueError: float32 cannot hold it.
    """
    value = config[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    with np.errstate(over="ignore"):
        factor = np.float32(value if is_number else np.nan)
    if not np.isfinite(factor):
        raise ValueError(f"{key} is {format_value(value)}, which is no number that float32 can hold")
    return factor


def patchify(latents: Latents, patch_size: int, channels_last: bool = True) -> Latents:
    """Splits latents (1, channels, height, width) into patches (tokens, patch_size * patch_size * channels).

    Args:
        latents: The latents.
        patch_size: Rows and columns of a patch.
        channels_last: Whether channels vary fastest within a patch; otherwise they vary slowest.
    """
    _, channels, height, width = latents.shape
    grid = latents.reshape(channels, height // patch_size, patch_size, width // patch_size, patch_size)
    axes = (1, 3, 2, 4, 0) if channels_last else (1, 3, 0, 2, 4)
    return grid.transpose(axes).reshape(-1, patch_size * patch_size * channels)


def unpatchify(patches: Latents, shape: tuple[int, ...], patch_size: int, channels_last: bool = True) -> Latents:
    """Inverts `patchify` for latents of the given shape."""
    _, channels, height, width = shape
    grid = height // patch_size, width // patch_size
    if channels_last:
        return patches.reshape(*grid, patch_size, patch_size, channels).transpose(4, 0, 2, 1, 3).reshape(shape)
    return patches.reshape(*grid, channels, patch_size, patch_size).transpose(2, 0, 3, 1, 4).reshape(shape)


def decode_pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turns an image (1, 3, height, width) in [-1, 1] into 8 bits (height, width, 3), as diffusers rounds it."""
    unit: NDArray[np.float32] = (image[0] * np.float32(0.5) + np.float32(0.5)).clip(0, 1)
    return np.rint(unit * 255).astype(np.uint8).transpose(1, 2, 0)


def encode_pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turns an 8-bit image (height, width, 3) into what an encoder takes, (1, 3, height, width) in [-1, 1]."""
    return image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255) * 2 - 1
