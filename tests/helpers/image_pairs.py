"""Images for tests that compare two, in the formats of edgepress and of other libraries."""

from __future__ import annotations

import numpy as np
import torch

from edgepress.evaluate.images.types import ImageArray


def random_image(height: int, width: int) -> ImageArray:
    """Returns an image of uniform noise, which is always the same."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def add_noise(image: ImageArray, deviation: float) -> ImageArray:
    """Returns the image with normal noise of the given standard deviation."""
    noise = np.random.default_rng(1).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def as_tensor(image: ImageArray) -> torch.Tensor:
    """Returns the image as a tensor of shape ``(1, 3, height, width)`` in 0..1."""
    return torch.tensor(image).permute(2, 0, 1)[None].double() / 255
