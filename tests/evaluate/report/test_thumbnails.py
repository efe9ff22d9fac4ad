from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.report.thumbnails import LARGE_SIZE, SMALL_SIZE, Thumbnails


def decode(url: str) -> Image.Image:
    header, content = url.split(",")
    assert header == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_small_images_are_lossless(noise: ImageArray) -> None:
    thumbnails = Thumbnails()
    assert thumbnails.add(noise, SMALL_SIZE) == 0
    assert thumbnails.add(noise[:, ::-1], SMALL_SIZE) == 1  # not contiguous
    assert np.array_equal(np.asarray(decode(thumbnails.data_urls[0])), noise)
    assert np.array_equal(np.asarray(decode(thumbnails.data_urls[1])), noise[:, ::-1])


def test_large_images_are_scaled_down_proportionally() -> None:
    image = np.zeros((500, 1000, 3), np.uint8)
    thumbnails = Thumbnails()
    for size in (LARGE_SIZE, SMALL_SIZE):
        thumbnails.add(image, size)
    assert [decode(url).size for url in thumbnails.data_urls] == [(768, 384), (256, 128)]


def test_the_budget_is_not_exceeded(noise: ImageArray) -> None:
    single = Thumbnails()
    single.add(noise, SMALL_SIZE)
    thumbnails = Thumbnails(max_bytes=3 * single.used_bytes)
    indices = [thumbnails.add(noise, SMALL_SIZE) for _ in range(40)]
    assert thumbnails.used_bytes <= thumbnails.max_bytes
    assert thumbnails.used_bytes == sum(len(base64.b64decode(url.split(",")[1])) for url in thumbnails.data_urls)
    added = [index for index in indices if index is not None]
    assert added == list(range(len(thumbnails.data_urls)))
    assert len(added) > 3  # beyond half of the budget, images are compressed
    assert None in indices
