from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.report.thumbnails import LARGE_SIZE, SMALL_SIZE, Thumbnails


def opened(address: str) -> Image.Image:
    head, content = address.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_small_pictures_are_kept_to_the_bit(noise: ImageArray) -> None:
    album = Thumbnails()
    assert album.add(noise, SMALL_SIZE) == 0
    assert album.add(noise[:, ::-1], SMALL_SIZE) == 1  # not contiguous
    assert np.array_equal(np.asarray(opened(album.data_urls[0])), noise)
    assert np.array_equal(np.asarray(opened(album.data_urls[1])), noise[:, ::-1])


def test_large_ones_are_made_smaller_in_proportion() -> None:
    picture = np.zeros((500, 1000, 3), np.uint8)
    album = Thumbnails()
    for side in (LARGE_SIZE, SMALL_SIZE):
        album.add(picture, side)
    assert [opened(address).size for address in album.data_urls] == [(768, 384), (256, 128)]


def test_the_budget_is_kept(noise: ImageArray) -> None:
    one = Thumbnails()
    one.add(noise, SMALL_SIZE)
    album = Thumbnails(max_bytes=3 * one.used_bytes)
    numbers = [album.add(noise, SMALL_SIZE) for _ in range(40)]
    assert album.used_bytes <= album.max_bytes
    assert album.used_bytes == sum(len(base64.b64decode(address.split(",")[1])) for address in album.data_urls)
    kept = [number for number in numbers if number is not None]
    assert kept == list(range(len(album.data_urls)))
    assert len(kept) > 3  # beyond half of the budget they are compressed
    assert None in numbers
