"""Random training signs, their images as tensors, and sample sheets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..signs import dataset
from .stage import DEVICE


def stream_signs(seed: int) -> Iterator[dataset.Sign]:
    """Yields random training signs."""
    rng = random.Random(seed)
    while True:
        yield dataset.draw_sign(rng)


def render_images(batch: list[dataset.Sign], random_colours: bool = False) -> Tensor:
    """Renders signs, with random dark text colours if asked for; returns images in -1..1, shape (n, 3, 128, 128)."""
    rng = np.random.default_rng()
    colours = rng.integers(0, 220, (len(batch), 3)).tolist() if random_colours else [None] * len(batch)
    stack = np.stack([dataset.render_sign(sign, rng, colour) for sign, colour in zip(batch, colours, strict=True)])
    return (torch.from_numpy(stack).to(DEVICE).float() / 127.5 - 1).permute(0, 3, 1, 2)


def save_sheet(images: Tensor, path: Path, columns: int = 8) -> None:
    """Writes images in -1..1, shape (n, 3, h, w), as one PNG."""
    from PIL import Image

    rows = [torch.cat(list(row), dim=2) for row in images.split(columns) if len(row) == columns]
    sheet = torch.cat(rows, dim=1).permute(1, 2, 0)
    Image.fromarray(((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()).save(path)
