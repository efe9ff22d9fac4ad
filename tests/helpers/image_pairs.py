"""A second picture for tests of what compares two, and both as other libraries want them."""

from __future__ import annotations

import numpy as np
import torch

from edgepress.evaluate.images.types import ImageArray


def disturbed(picture: ImageArray, deviation: float) -> ImageArray:
    """With normal noise on every value."""
    noise = np.random.default_rng(1).normal(0, deviation, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def as_tensor(picture: ImageArray) -> torch.Tensor:
    """In 0..1, shape (1, 3, height, width)."""
    return torch.tensor(picture).permute(2, 0, 1)[None].double() / 255
