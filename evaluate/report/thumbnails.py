"""Embeds images into the HTML report: WebP in data URLs, as many and as large as a budget of bytes allows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..images.types import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 12_000_000  # of WebP in a page; base64 adds a third
LARGE_SIZE, SMALL_SIZE = 768, 256  # longer side in pixels, of the worst images and of all others
QUALITY = 88


@dataclass
class Thumbnails:
    """Collects images until the budget is spent.

    Attributes:
        max_bytes: the budget, in bytes of WebP.
        used_bytes: the bytes of WebP so far.
        data_urls: the images.
    """

    max_bytes: int = MAX_BYTES
    used_bytes: int = 0
    data_urls: list[str] = field(default_factory=list)

    def add(self, image: ImageArray, max_side: int) -> int | None:
        """Adds an image, scaled down to a longer side of at most `max_side` pixels.

        Small images are lossless while half of the budget is left: compression would hide what quantization did.

        Returns:
            The index in `data_urls`; None if the image does not fit the budget.
        """
        thumbnail = _shrink(image, max_side)
        lossless = max(thumbnail.size) <= SMALL_SIZE and 2 * self.used_bytes < self.max_bytes
        content = _encode(thumbnail, lossless)
        if self.used_bytes + len(content) > self.max_bytes:
            return None
        self.used_bytes += len(content)
        self.data_urls.append(f"data:image/webp;base64,{base64.b64encode(content).decode()}")
        return len(self.data_urls) - 1


def _shrink(image: ImageArray, max_side: int) -> Image:
    from PIL import Image

    thumbnail = Image.fromarray(np.ascontiguousarray(image))
    thumbnail.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return thumbnail


def _encode(image: Image, lossless: bool) -> bytes:
    """Encodes as WebP. The least lossless effort takes a tenth of the time of the most, for a tenth more bytes."""
    stream = io.BytesIO()
    options = {"lossless": True, "method": 1, "quality": 25} if lossless else {"method": 3, "quality": QUALITY}
    image.save(stream, "WEBP", **options)
    return stream.getvalue()
