"""Pictures inside the page: WebP in data addresses, as many and as large as a budget of bytes allows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..images.types import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 12_000_000  # bytes of WebP in a page; in a page they take a third more
LARGE_SIZE, SMALL_SIZE = 768, 256  # longer side in pixels: of pictures that are looked at closely, and of all others
QUALITY = 88


@dataclass
class Thumbnails:
    """Collects pictures until the budget is spent. `spent` is in bytes of WebP."""

    max_bytes: int = MAX_BYTES
    used_bytes: int = 0
    data_urls: list[str] = field(default_factory=list)

    def add(self, picture: ImageArray, side: int) -> int | None:
        """The number under which the picture stands in `addresses`; None where it does not fit the budget.

        Small pictures are kept without loss while half of the budget is left: compression would hide what
        quantization did.
        """
        image = _shrunk(picture, side)
        exact = max(image.size) <= SMALL_SIZE and 2 * self.used_bytes < self.max_bytes
        content = _encoded(image, exact)
        if self.used_bytes + len(content) > self.max_bytes:
            return None
        self.used_bytes += len(content)
        self.data_urls.append(f"data:image/webp;base64,{base64.b64encode(content).decode()}")
        return len(self.data_urls) - 1


def _shrunk(picture: ImageArray, side: int) -> Image:
    """The picture with a longer side of at most so many pixels."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _encoded(image: Image, exact: bool) -> bytes:
    """WebP; the least effort of its lossless kind takes a tenth of the time of the most, and a tenth more bytes."""
    stream = io.BytesIO()
    options = {"lossless": True, "method": 1, "quality": 25} if exact else {"method": 3, "quality": QUALITY}
    image.save(stream, "WEBP", **options)
    return stream.getvalue()
