from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from edgepress.common.errors import UserError
from edgepress.evaluate.images.image_file import (
    NAN_TAG,
    TRUNCATION_TAG,
    ImageRecord,
    get_image_stem,
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG", "a format that is not read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "damaged or truncated"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "damaged or truncated"),
        (b'{"error": "too many requests"}', "text, no image"),
        (b"<!DOCTYPE html><html><title>404</title>", "a web page, such as that of a failed download"),
        (b"\n<HTML lang=en>", "a web page, such as that of a failed download"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "a web page, such as that of a failed download"),
    ],
)
def test_corrupt_files_are_unreadable_with_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(content)
    assert load_record(tmp_path / "0.png") == f"unreadable ({reason})"
    with pytest.raises(UserError, match=r"0\.png is not a readable image"):
        load_image(tmp_path / "0.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a git-lfs pointer, not the image itself",
        ),
    ],
)
def test_files_without_an_image_are_named(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(content)
    assert load_record(tmp_path / "0.png") == f"unreadable ({reason})"


def test_a_truncated_image_is_named(noise: ImageArray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(content[: len(content) // 2])
    assert load_record(tmp_path / "0.png") == "unreadable (damaged or truncated)"


@pytest.mark.parametrize(
    ("points", "is_read"),
    [((1, 13, 0, 1), True), ((9, 16, 0, 1), False), ((1, 8, 0, 1), False), ((1, 13, 0, 0), False)],
)
def test_colors_by_cicp_are_refused_unless_they_are_srgb(
    points: tuple[int, ...], is_read: bool, noise: ImageArray, tmp_path: Path
) -> None:
    """Pillow ignores them: the same bytes with (9, 16, 0, 1) are BT.2100 with the PQ curve."""
    info = PngInfo()
    info.add(b"cICP", bytes(points))
    Image.fromarray(noise).save(tmp_path / "0.png", pnginfo=info)
    record = load_record(tmp_path / "0.png")
    if is_read:
        assert isinstance(record, ImageRecord)
    else:
        numbers = ", ".join(map(str, points[:3]))
        assert record == f"unreadable (colors by cICP (primaries, transfer and matrix {numbers}) instead of sRGB)"


@pytest.mark.filterwarnings("error")
def test_a_palette_with_opaque_alphas_is_read(noise: ImageArray, tmp_path: Path) -> None:
    """As tools that make PNG files small write it."""
    image = Image.fromarray(noise).convert("P")
    image.save(tmp_path / "0.png", transparency=b"\xff" * 256)
    assert np.array_equal(load_image(tmp_path / "0.png"), np.asarray(image.convert("RGB")))


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.png").symlink_to("elsewhere.png")
    assert load_record(tmp_path / "0.png") == "unreadable (a link to nothing)"


def test_16_bits_of_a_pixel_are_read(tmp_path: Path) -> None:
    """A BMP of 5, 6 and 5 bits."""
    size, masks = (4, 4), (0xF800, 0x7E0, 0x1F)
    header = struct.pack("<IiiHHIIiiII3I", 40, *size, 1, 16, 3, 32, 0, 0, 0, 0, *masks)
    beginning = struct.pack("<2sIHHI", b"BM", 14 + len(header) + 32, 0, 0, 14 + len(header))
    (tmp_path / "0.bmp").write_bytes(beginning + header + b"\x00\xf8" * 16)
    assert (load_image(tmp_path / "0.bmp") == (255, 0, 0)).all()


def test_composed_and_decomposed_names_are_equal(noise: ImageArray, tmp_path: Path) -> None:
    """macOS stores them decomposed."""
    Image.fromarray(noise).save(tmp_path / "e\u0301.png")
    assert list(list_images(tmp_path)) == ["\u00e9"] == [get_image_stem("e\u0301", 0, 1)]


def test_absent_files_are_missing(tmp_path: Path) -> None:
    assert load_record(None) == load_record(tmp_path / "0.png") == "missing"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
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
    Image.fromarray(noise[..., 0].astype(np.uint16) * 100).save(tmp_path / "gray.tiff")
    assert load_record(tmp_path / "gray.tiff") == "unreadable (more than 8 bits per channel)"
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
    for name in ("b.PNG", "a.jpg", "c.GIF", "d.tiff", ".hidden.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert list(list_images(tmp_path)) == ["a", "b", "c", "d"]
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match=r"contains both a\.bmp and a\.jpg"):
        list_images(tmp_path)


# How the displayed image follows from the stored one, by EXIF orientation (TIFF 6.0, tag 274).
ORIENTATIONS: dict[int, Callable[[ImageArray], ImageArray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored[::-1].transpose(1, 0, 2),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(suffix: str, orientation: int, noise: ImageArray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"0{suffix}"
    Image.fromarray(noise).save(file, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    expected = ORIENTATIONS[orientation](noise)
    assert np.array_equal(load_image(file), expected)
    upright = tmp_path / "upright.png"
    Image.fromarray(np.ascontiguousarray(expected)).save(upright)
    assert load_valid_record(file).digest == load_valid_record(upright).digest
    assert load_valid_record(file).size == f"{expected.shape[1]}x{expected.shape[0]}"


def test_jpeg_is_turned_as_well(noise: ImageArray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise).save(tmp_path / "plain.jpg")
    Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=exif)
    turned = load_image(tmp_path / "turned.jpg")
    assert np.array_equal(turned, ORIENTATIONS[6](load_image(tmp_path / "plain.jpg")))


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".tif"])
def test_files_with_several_frames_are_refused_and_those_with_one_are_read(
    suffix: str, noise: ImageArray, tmp_path: Path
) -> None:
    frames = [Image.fromarray(noise), Image.fromarray(noise[::-1].copy()), Image.fromarray(noise[:, ::-1].copy())]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"many{suffix}", save_all=True, append_images=frames[1:], **options)
    assert load_record(tmp_path / f"many{suffix}") == "unreadable (3 frames)"
    with pytest.raises(UserError, match=r"\(3 frames\)\. Only still 8-bit"):
        load_image(tmp_path / f"many{suffix}")
    frames[0].save(tmp_path / f"one{suffix}", **options)
    with Image.open(tmp_path / f"one{suffix}") as opened:
        assert np.array_equal(load_image(tmp_path / f"one{suffix}"), np.asarray(opened.convert("RGB")))


def test_formats_that_lose_bits_are_named(noise: ImageArray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "0.avif")
    assert load_record(list_images(tmp_path)["0"]) == "unreadable (format AVIF)"
    (tmp_path / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert load_record(list_images(tmp_path)["1"]) == "unreadable (a format that is not read)"


def test_images_of_every_format_are_listed(tmp_path: Path) -> None:
    formats = Image.registered_extensions()
    suffixes = {suffix for suffix, name in formats.items() if Image.MIME.get(name, "").startswith("image/")}
    assert {".ppm", ".tga"} < suffixes
    for suffix in suffixes:
        (tmp_path / f"{suffix[1:]}{suffix.upper()}").touch()
    assert len(list_images(tmp_path)) == len(suffixes)
    Image.new("RGB", (8, 8)).save(tmp_path / "c.ppm")
    assert load_record(tmp_path / "c.ppm") == "unreadable (format PPM)"


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(UserError, match=r"The name '.*caf\\xe9\.png' is not UTF-8"):
        list_images(tmp_path)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    assert load_record(tmp_path / "0.png") == "unreadable (not a file)"


def test_srgb_profile_changes_nothing(noise: ImageArray, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(tmp_path / "0.png", icc_profile=profile)
    assert np.array_equal(load_image(tmp_path / "0.png"), noise)


def test_other_color_profile_is_converted_to_srgb(noise: ImageArray, tmp_path: Path) -> None:
    """The profile is that of sRGB with red and green swapped, so that the result is known."""
    Image.fromarray(noise).save(tmp_path / "0.png", icc_profile=swap_red_and_green())
    difference = np.abs(load_image(tmp_path / "0.png").astype(int) - noise[..., [1, 0, 2]])
    assert difference.max() <= 1


def test_a_profile_with_another_curve_is_converted_whatever_its_name(noise: ImageArray, tmp_path: Path) -> None:
    """The name has "sRGB" in it, as that of GIMP's linear profile does. Compared with IEC 61966-2-1."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    start = profile.index(b"para")  # the curve of all three channels: its type, padding, and s15Fixed16 numbers
    linear = b"para" + bytes(8) + (1 << 16).to_bytes(4, "big") + bytes(16)
    Image.fromarray(noise).save(
        tmp_path / "0.png", icc_profile=profile[:start] + linear + profile[start + len(linear) :]
    )
    light = noise / 255
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    assert np.abs(load_image(tmp_path / "0.png") - 255 * curved).max() <= 1


def swap_red_and_green() -> bytes:
    """Returns an sRGB profile whose primaries red and green are swapped, under another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(int.from_bytes(profile[128:132], "big")):  # the table of tags: name, offset, size
        entry = 132 + 12 * number
        name = bytes(profile[entry : entry + 4])
        if name in (b"rXYZ", b"gXYZ"):
            profile[entry : entry + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}[name]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def test_unusable_color_profiles_are_named(noise: ImageArray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "damaged.png", icc_profile=b"x" * 200)
    assert load_record(tmp_path / "damaged.png") == "unreadable (damaged color profile)"
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(noise).save(tmp_path / "lab.png", icc_profile=lab)
    failure = load_record(tmp_path / "lab.png")
    assert isinstance(failure, str)
    assert failure.endswith("for another kind of image)")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".tif", ".bmp"])
def test_damaged_files_are_unreadable_whatever_is_damaged(suffix: str, noise: ImageArray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {} if suffix in (".gif", ".bmp") else {"exif": exif}
    Image.fromarray(noise).save(tmp_path / f"0{suffix}", **options)
    content = (tmp_path / f"0{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, len(damaged), 8):
            damaged[place] = rng.integers(256)
        (tmp_path / f"1{suffix}").write_bytes(damaged)
        record = load_record(tmp_path / f"1{suffix}")
        assert isinstance(record, ImageRecord) or record.startswith("unreadable")


def encode_tiff_header(width: int, height: int) -> bytes:
    """Encodes a grayscale TIFF (TIFF 6.0, section 4) whose pixels are not in the file."""
    tags = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: height,
        279: min(width * height, 2**32 - 1),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(9460, 9460), (13_000, 10_000), (100_000, 100_000)])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    """Pillow itself warns of the first two, and raises for the last."""
    (tmp_path / "0.tiff").write_bytes(encode_tiff_header(*size))
    assert load_record(tmp_path / "0.tiff") == "unreadable (more than 89,478,485 pixels)"
    with pytest.raises(UserError, match=r"0\.tiff is not a readable image \(more than 89,478,485 pixels\)"):
        load_image(tmp_path / "0.tiff")


def test_a_small_image_of_the_same_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "0.tiff").write_bytes(encode_tiff_header(4, 2) + bytes(100))
    assert load_image(tmp_path / "0.tiff").shape == (2, 4, 3)
