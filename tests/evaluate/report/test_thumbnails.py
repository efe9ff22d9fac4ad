from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from edgepress.evaluate.registry import Picture
from edgepress.evaluate.report.thumbnails import LARGE, SMALL, Thumbnails


def opened(address: str) -> Image.Image:
    head, content = address.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_small_pictures_are_kept_to_the_bit(noise: Picture) -> None:
    album = Thumbnails()
    assert album.add(noise, SMALL) == 0
    assert album.add(noise[:, ::-1], SMALL) == 1  # not contiguous
    assert np.array_equal(np.asarray(opened(album.addresses[0])), noise)
    assert np.array_equal(np.asarray(opened(album.addresses[1])), noise[:, ::-1])


def test_large_ones_are_made_smaller_in_proportion() -> None:
    picture = np.zeros((500, 1000, 3), np.uint8)
    album = Thumbnails()
    for side in (LARGE, SMALL):
        album.add(picture, side)
    assert [opened(address).size for address in album.addresses] == [(768, 384), (256, 128)]


def test_the_budget_is_kept(noise: Picture) -> None:
    one = Thumbnails()
    one.add(noise, SMALL)
    album = Thumbnails(budget=3 * one.spent)
    numbers = [album.add(noise, SMALL) for _ in range(40)]
    assert album.spent <= album.budget
    assert album.spent == sum(len(base64.b64decode(address.split(",")[1])) for address in album.addresses)
    kept = [number for number in numbers if number is not None]
    assert kept == list(range(len(album.addresses)))
    assert len(kept) > 3  # beyond half of the budget they are compressed
    assert None in numbers
