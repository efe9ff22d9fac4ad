from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgepress.common.errors import UserError
from edgepress.evaluate.images.image_file import (
    NAN_TAG,
    TRUNCATION_TAG,
    ImageRecord,
    list_images,
    load_image,
    load_record,
)
from edgepress.evaluate.images.types import ImageArray


def load_valid_record(file: Path) -> ImageRecord:
    record = load_record(file)
    assert isinstance(record, ImageRecord)
    return record


def test_digest_depends_on_content_and_not_on_the_format(noise: ImageArray, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.webp"):
        Image.fromarray(noise).save(tmp_path / name, lossless=True)
    digests = {load_valid_record(tmp_path / name).digest for name in ("a.png", "a.bmp", "a.webp")}
    assert len(digests) == 1
    Image.fromarray(noise.reshape(48, 64, 3)).save(tmp_path / "reshaped.png")
    reshaped = load_valid_record(tmp_path / "reshaped.png")
    assert reshaped.size == "64x48"
    assert reshaped.digest not in digests


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_corrupt_files_are_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(content)
    assert load_record(tmp_path / "0.png") == "unreadable"
    with pytest.raises(UserError, match=r"0\.png is not a readable image"):
        load_image(tmp_path / "0.png")


def test_absent_files_are_missing(tmp_path: Path) -> None:
    assert load_record(None) == load_record(tmp_path / "0.png") == "missing"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_opaque_8_bit_modes_are_supported(mode: str, noise: ImageArray, tmp_path: Path) -> None:
    image = Image.fromarray(noise).convert(mode)
    image.save(tmp_path / "0.png")
    assert np.array_equal(load_image(tmp_path / "0.png"), np.asarray(image.convert("RGB")))


def test_16_bit_images_are_refused(noise: ImageArray, tmp_path: Path) -> None:
    """Pillow would clip all gray values above 255 to white, so that any two images would be equal."""
    Image.fromarray(noise[..., 0].astype(np.uint16) * 100 + 300).save(tmp_path / "gray.png")
    (tmp_path / "rgb.png").write_bytes(encode_16_bit_png(8, 8))
    for name in ("gray.png", "rgb.png"):
        assert load_record(tmp_path / name) == "unreadable (more than 8 bits per channel)"
    with pytest.raises(UserError, match=r"gray\.png is not a readable image \(more than 8 bits per channel\)\. Only"):
        load_image(tmp_path / "gray.png")


def test_transparent_and_cmyk_images_are_refused(noise: ImageArray, tmp_path: Path) -> None:
    transparent = Image.fromarray(noise)
    transparent.putalpha(254)
    transparent.save(tmp_path / "rgba.png")
    Image.fromarray(noise).convert("P").save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba.png", "palette.png"):
        assert load_record(tmp_path / name) == "unreadable (transparent)"
    Image.fromarray(noise).convert("CMYK").save(tmp_path / "print.jpg")
    assert load_record(tmp_path / "print.jpg") == "unreadable (mode CMYK)"


def encode_16_bit_png(width: int, height: int) -> bytes:
    """Encodes an RGB PNG with 16 bits per channel, which Pillow cannot write."""

    def encode_chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress((b"\0" + bytes(range(48)) * (width // 8)) * height)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = encode_chunk(b"IHDR", header) + encode_chunk(b"IDAT", pixels) + encode_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_png_tags_report_nan_and_truncated_prompts(noise: ImageArray, tmp_path: Path) -> None:
    tags = PngInfo()
    tags.add_text(NAN_TAG, "x")
    tags.add_text(TRUNCATION_TAG, "The prompt was truncated.")
    Image.fromarray(noise).save(tmp_path / "0.png", pnginfo=tags)
    record = load_valid_record(tmp_path / "0.png")
    assert (record.defect, record.truncation_notice) == ("nan", "The prompt was truncated.")


def test_images_are_listed_by_stem(noise: ImageArray, tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert list(list_images(tmp_path)) == ["a", "b"]
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match=r"contains both a\.bmp and a\.jpg"):
        list_images(tmp_path)
