"""`POST /generate`: forms and JSON, the formats and kinds of answers, and what is refused."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from edgepress.runtime.pipeline import ImagePipeline


def make_field(number: int) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % number


FILE = b'--x\r\nContent-Disposition: form-data; name="prompt"; filename="f"\r\n\r\na\r\n--x--'
PROMPT = 'a plain white wall, large red letters, top: "OPEN"'


def read(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def test_a_form_as_curl_sends_it(client: httpx.Client, small_artifact: Path) -> None:
    fields = {"prompt": PROMPT, "width": "64", "height": "32", "seed": "7", "steps": "2"}
    answer = client.post("/generate", files={name: (None, value) for name, value in fields.items()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-edgepress-seed"] == "7"
    expected = ImagePipeline(small_artifact)(PROMPT, seed=7, steps=2, size=(32, 64))
    np.testing.assert_array_equal(np.asarray(read(answer.content)), np.asarray(expected))


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_json_and_formats(client: httpx.Client, name: str, kind: str) -> None:
    answer = client.post("/generate", json={"prompt": PROMPT, "format": name, "steps": 1, "quality": 50})
    assert answer.headers["content-type"] == f"image/{name}"
    image = read(answer.content)
    assert (image.format, image.size) == (kind, (128, 128))
    software = image.info["Software"] if name == "png" else image.getexif()[0x0131]
    assert software.startswith("edgepress ")
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in answer.content
    assert PROMPT.encode() not in answer.content


def test_quality_changes_the_size_of_a_jpeg(client: httpx.Client) -> None:
    sizes = [
        len(client.post("/generate", json={"prompt": "x", "format": "jpeg", "seed": 1, "quality": quality}).content)
        for quality in (10, 95)
    ]
    assert sizes[0] < sizes[1]


def test_a_data_url_with_facts(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"prompt": "a masterpiece", "response": "data_url", "steps": 1}).json()
    header, _, content = answer["data_url"].partition(",")
    assert header == "data:image/png;base64"
    assert read(base64.b64decode(content)).size == (answer["width"], answer["height"]) == (128, 128)
    assert answer["steps"] == 1
    assert "masterpiece" in answer["warnings"][0]


def test_seeds_are_random_unless_given(client: httpx.Client) -> None:
    seeds = {client.post("/generate", json={"prompt": "x", "steps": 1}).headers["x-edgepress-seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_long_prompt_is_truncated_with_a_warning(client: httpx.Client) -> None:
    answer = client.post("/generate", data={"prompt": "red letters " * 160, "steps": "1"})
    (warning,) = json.loads(answer.headers["x-edgepress-warnings"])
    assert "tokens; the model reads the first" in warning


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"negative_prompt": "blue"}, "without guidance"),
        ({"strength": 0.5}, "without an image"),
        ({"quality": 80}, "on PNG"),
    ],
)
def test_fields_without_effect_are_named(client: httpx.Client, fields: dict[str, object], reason: str) -> None:
    answer = client.post("/generate", json={"prompt": "a red teapot", "steps": 1} | fields)
    (warning,) = json.loads(answer.headers["x-edgepress-warnings"])
    assert f"has no effect {reason}" in warning


def test_events_tell_the_progress_of_every_step(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"prompt": "x", "steps": 3, "response": "events"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.split("\n\n") if block]
    names = [event["event"] for event in events]
    assert names[0] == "queued"
    assert names[-1] == "image"
    assert set(names[1:-1]) == {"progress"}
    steps = [json.loads(event["data"]) for event in events if '"denoising"' in event["data"]]
    assert [step["done"] for step in steps] == [0, 1, 2, 3]
    assert {step["total"] for step in steps} == {3}
    assert json.loads(events[-1]["data"])["data_url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 422, "prompt is missing"),
        ({"prompt": " \n"}, 422, "prompt = ' \\n': it must not be blank"),
        ({"prompt": "\ud800"}, 422, "must be valid Unicode"),
        ({"prompt": "x" * 2001}, 422, "2001 characters; the limit is 2000"),
        ({"prompt": "x", "width": 100}, 422, "multiples of 16"),
        ({"prompt": "x", "width": 144}, 422, "this server's limit is 128"),
        ({"prompt": "x", "width": "64"}, 422, "width = '64': it must be a whole number"),
        ({"prompt": "x", "steps": 4001}, 422, "the limit is 4000"),
        ({"prompt": "x", "seed": -1}, 422, "seed = -1: it must be at least 0"),
        ({"prompt": "x", "seed": True}, 422, "whole number"),
        ({"prompt": "x", "seed": 2**64}, 422, "it must be at most 9007199254740991"),
        ({"prompt": "x", "quality": 0}, 422, "quality = 0"),
        ({"prompt": "x", "format": "gif"}, 422, "format = 'gif'"),
        ({"prompt": "x", "colour": "red"}, 422, "colour is unknown; known: prompt, negative_prompt"),
        ({"prompt": "x", "preset": "fast"}, 404, "Unknown preset 'fast'"),
        ({"prompt": "x", "template": "iconn"}, 404, "did you mean 'icon'?"),
    ],
)
def test_values_that_are_refused(client: httpx.Client, body: dict[str, Any], status: int, text: str) -> None:
    answer = client.post("/generate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == status
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (FILE, "is a file. Send text."),
        (b"".join(map(make_field, range(40))) + b"--x--", "more than 32 fields"),
        (b"--y\r\nbroken", "The body is no form"),
    ],
)
def test_forms_that_are_refused_say_why(client: httpx.Client, content: bytes, text: str) -> None:
    answer = client.post("/generate", content=content, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 400
    assert text in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"prompt": "a", "prompt": "b"}', "application/json", 400),
        (b'{"prompt": "x", "seed": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"prompt=a&prompt=b", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=b"] * 40), "application/x-www-form-urlencoded", 400),
        (b"--y\r\nbroken", "multipart/form-data; boundary=x", 400),
        (b"no boundary", "multipart/form-data", 400),
        (FILE, "multipart/form-data; boundary=x", 400),
        (b"prompt", "text/plain", 415),
        (b"x" * 70_000, "application/json", 413),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(client: httpx.Client, content: bytes, media_type: str, status: int) -> None:
    answer = client.post("/generate", content=content, headers={"Content-Type": media_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_body_without_a_length_is_bounded_as_well(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/generate", content=(b"x" * 10_000 for _ in range(8)), headers=headers)
    assert answer.status_code == 413
