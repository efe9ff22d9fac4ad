from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgepress.common.errors import UserError
from edgepress.evaluate.images.image_file import NAN_TAG, ImageRecord, list_images, load_image, load_record
from edgepress.evaluate.images.types import ImageArray


def test_the_content_counts_and_not_the_file(noise: ImageArray, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.webp"):
        Image.fromarray(noise).save(tmp_path / name, lossless=True)
    shots = [load_record(tmp_path / name) for name in ("a.png", "a.bmp", "a.webp")]
    assert len({shot.digest for shot in shots if isinstance(shot, ImageRecord)}) == 1
    turned = tmp_path / "turned.png"
    Image.fromarray(noise.reshape(48, 64, 3)).save(turned)
    found = load_record(turned)
    assert isinstance(found, ImageRecord)
    assert found.size == "64x48"
    assert found.digest not in {shot.digest for shot in shots if isinstance(shot, ImageRecord)}


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(content)
    assert load_record(tmp_path / "0.png") == "unreadable"
    with pytest.raises(UserError, match=r"0\.png is no readable picture"):
        load_image(tmp_path / "0.png")


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    assert load_record(None) == load_record(tmp_path / "0.png") == "missing"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_eight_bits_without_transparency_are_read(mode: str, noise: ImageArray, tmp_path: Path) -> None:
    image = Image.fromarray(noise).convert(mode)
    image.save(tmp_path / "0.png")
    assert np.array_equal(load_image(tmp_path / "0.png"), np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_refused_and_not_clipped(noise: ImageArray, tmp_path: Path) -> None:
    """Pillow makes white of every grey value above 255, so that any two pictures would be equal."""
    Image.fromarray(noise[..., 0].astype(np.uint16) * 100 + 300).save(tmp_path / "grey.png")
    (tmp_path / "rgb.png").write_bytes(rgb_of_16_bits(8, 8))
    for name in ("grey.png", "rgb.png"):
        assert load_record(tmp_path / name) == "unreadable (more than 8 bits a colour)"
    with pytest.raises(UserError, match=r"grey\.png is no readable picture \(more than 8 bits a colour\)"):
        load_image(tmp_path / "grey.png")


def test_what_can_be_seen_through_is_refused(noise: ImageArray, tmp_path: Path) -> None:
    glass = Image.fromarray(noise)
    glass.putalpha(254)
    glass.save(tmp_path / "rgba.png")
    Image.fromarray(noise).convert("P").save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba.png", "palette.png"):
        assert load_record(tmp_path / name) == "unreadable (transparent)"
    Image.fromarray(noise).convert("CMYK").save(tmp_path / "print.jpg")
    assert load_record(tmp_path / "print.jpg") == "unreadable (of mode CMYK)"


def rgb_of_16_bits(width: int, height: int) -> bytes:
    """A PNG by its specification, for Pillow writes none of this kind."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = zlib.compress((b"\0" + bytes(range(48)) * (width // 8)) * height)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def test_a_mark_tells_pictures_that_held_nan(noise: ImageArray, tmp_path: Path) -> None:
    said = PngInfo()
    said.add_text(NAN_TAG, "x")
    Image.fromarray(noise).save(tmp_path / "0.png", pnginfo=said)
    found = load_record(tmp_path / "0.png")
    assert isinstance(found, ImageRecord)
    assert found.defect == "nan"


def test_a_folder_is_read_by_stem(noise: ImageArray, tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert list(list_images(tmp_path)) == ["a", "b"]
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match=r"holds a\.bmp and a\.jpg"):
        list_images(tmp_path)
