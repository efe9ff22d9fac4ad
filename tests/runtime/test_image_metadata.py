"""Metadata of generated images, read back with Pillow and an XML parser."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.image_metadata import Detail, ImageOrigin, build_save_options, read_origin, read_prompt_hash

ORIGIN = ImageOrigin('a "red" <door> & 门\x07', seed=2**63 - 1, steps=8, model="APipeline", artifact_sha256="ab" * 32)
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def save(image_format: str, detail: Detail) -> Image.Image:
    stream = BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, image_format, **build_save_options(image_format, ORIGIN, detail))
    image = Image.open(stream)
    image.load()
    return image


def read_xmp(image: Image.Image) -> dict[str, str]:
    packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    text = packet.decode() if isinstance(packet, bytes) else packet
    (description,) = ElementTree.fromstring(text.strip("\ufeff")).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    return dict(description.attrib)


def read_values(image: Image.Image) -> dict[str, object]:
    if image.format == "PNG":
        text = image.text["edgepress"]  # type: ignore[attr-defined]
    else:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        text = comment.removeprefix(b"ASCII\0\0\0").decode("ascii")
    values: dict[str, object] = json.loads(text)
    return values


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("detail", ["hash", "prompt"])
def test_a_file_names_its_origin_and_is_marked_as_generated(image_format: str, detail: Detail) -> None:
    image = save(image_format, detail)
    expected: dict[str, object] = {"model": "APipeline", "artifact_sha256": "ab" * 32, "seed": 2**63 - 1, "steps": 8}
    if detail == "prompt":
        expected["prompt"] = ORIGIN.prompt
    else:
        expected["prompt_sha256"] = hashlib.sha256(ORIGIN.prompt.encode()).hexdigest()
    assert read_values(image) == expected
    xmp = read_xmp(image)
    assert (xmp[f"{IPTC}DigitalSourceType"], xmp[f"{IPTC}AISystemUsed"]) == (GENERATED, "APipeline")
    assert xmp.get(f"{IPTC}AIPromptInformation") == ('a "red" <door> & 门' if detail == "prompt" else None)


@pytest.mark.parametrize(
    ("strength", "source_type"), [(0.4, "compositeWithTrainedAlgorithmicMedia"), (1.0, "trainedAlgorithmicMedia")]
)
def test_an_image_that_was_changed_is_marked_as_such(strength: float, source_type: str) -> None:
    request = GenerationRequest("a sign", image=Image.new("RGB", (8, 8)), strength=strength)
    origin = ImageOrigin.from_request(request, "APipeline", "")
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG", **build_save_options("PNG", origin))
    image = Image.open(content)
    image.load()
    assert read_values(image)["strength"] == strength
    assert read_xmp(image)[f"{IPTC}DigitalSourceType"].rpartition("/")[2] == source_type


CHANGES = {  # of each field of a request, which the file must tell from the field before
    "prompt": "b",
    "seed": 1,
    "steps": 9,
    "tile_size": 64,
    "guidance": 3.5,
    "negative_prompt": "rain",
    "image": Image.new("RGB", (8, 8), "blue"),
    "strength": 0.7,
    "step_cache": 0.2,
}
NOT_RECORDED = {"size", "require_finite"}  # that of the file's own pixels, and what changes no pixel


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("detail", ["hash", "prompt"])
def test_every_field_of_a_request_that_changes_pixels_is_recorded(image_format: str, detail: Detail) -> None:
    assert {field.name for field in fields(GenerationRequest)} == {*CHANGES} | NOT_RECORDED
    first = GenerationRequest("a", image=Image.new("RGB", (8, 8), "red"))
    origin = ImageOrigin.from_request(first, "APipeline", "ab", "Engine 1", 90)
    for name, value in CHANGES.items():
        changed = ImageOrigin.from_request(replace(first, **{name: value}), "APipeline", "ab", "Engine 1", 90)  # type: ignore[arg-type]
        content = BytesIO()
        Image.new("RGB", (8, 8)).save(content, image_format, **build_save_options(image_format, changed, detail))
        recorded = read_origin(Image.open(content))
        assert changed.list_differences(recorded) == []
        assert origin.list_differences(recorded) == [f"{name}_sha256" if name == "image" else name]
        assert (recorded["engine"], recorded["quality"]) == ("Engine 1", 90)
    guided = ImageOrigin.from_request(replace(first, guidance=4.0), "APipeline", "ab")
    assert origin.list_differences(guided.to_dict(detail)) == ["guidance", "quality"]
    assert guided.list_differences(origin.to_dict(detail)) == ["guidance", "quality"]


def test_the_image_that_was_changed_is_named_by_its_pixels() -> None:
    request = GenerationRequest("a", image=Image.new("RGB", (2, 1), (1, 2, 3)))
    origin = ImageOrigin.from_request(request, "APipeline", "")
    assert origin.image_sha256 == hashlib.sha256(bytes([1, 2, 3] * 2)).hexdigest()


def test_a_negative_prompt_is_hashed_like_the_prompt() -> None:
    origin = replace(ORIGIN, negative_prompt="rain")
    assert origin.to_dict("hash")["negative_prompt_sha256"] == hashlib.sha256(b"rain").hexdigest()
    assert "negative_prompt" not in origin.to_dict("hash")
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG", **build_save_options("PNG", origin, "prompt"))
    image = Image.open(content)
    image.load()
    assert read_values(image)["negative_prompt"] == "rain"
    assert read_xmp(image)[f"{IPTC}AIPromptInformation"].endswith("\nNegative prompt: rain")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("length", [15_000, 30_000])  # 45 kB in XMP and 90 kB in EXIF, and more than both hold
def test_a_prompt_that_a_jpeg_cannot_hold_is_hashed(image_format: str, length: int) -> None:
    origin = replace(ORIGIN, prompt="门" * length)
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, image_format, **build_save_options(image_format, origin, "prompt"))
    image = Image.open(content)
    image.load()
    values = read_values(image)
    assert ("prompt" in values) == (image_format == "PNG")
    assert ("prompt_sha256" in values) == (image_format != "PNG")


@pytest.mark.parametrize(("image_format", "detail"), [("PNG", "none"), ("JPEG", "none"), ("BMP", "prompt")])
def test_nothing_is_stored_where_it_is_switched_off_or_cannot_be(image_format: str, detail: Detail) -> None:
    assert build_save_options(image_format, ORIGIN, detail) == {}
    assert not {"edgepress", "exif", "xmp"} & save(image_format, detail).info.keys()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("detail", ["hash", "prompt"])
def test_the_origin_is_read_back_and_compared(image_format: str, detail: Detail) -> None:
    recorded = read_origin(save(image_format, detail))
    assert read_prompt_hash(recorded) == hashlib.sha256(ORIGIN.prompt.encode()).hexdigest()
    assert ORIGIN.list_differences(recorded) == []
    assert replace(ORIGIN, prompt="a", seed=1).list_differences(recorded) == ["prompt", "seed"]
    assert replace(ORIGIN, artifact_sha256="cd" * 32).list_differences(recorded) == ["artifact_sha256"]


@pytest.mark.parametrize("text", ["{", "[]", '{"prompt": 1}', "[" * 5000, '{"prompt_sha256": null}', ""])
def test_what_records_nothing_readable_is_no_origin(text: str) -> None:
    image = Image.new("RGB", (8, 8))
    image.info["edgepress"] = text
    assert read_prompt_hash(read_origin(image)) is None
    assert "prompt" in ORIGIN.list_differences(read_origin(image))
