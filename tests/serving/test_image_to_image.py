"""Images that start from another one, over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO

import httpx
import pytest
from helpers.server import run_server
from helpers.small_artifact import write_small_artifact
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "small" / "onnx").mkdir(parents=True)
    write_small_artifact(folder / "small", has_encoder=True)
    with run_server(folder / "small", folder) as server, server.client() as client:
        yield client


def encode(side: int) -> bytes:
    stream = BytesIO()
    Image.effect_noise((side, side), 50).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def test_a_form_takes_a_file_and_json_base64(image_client: httpx.Client) -> None:
    content = encode(300)  # larger than bodies without an image may be
    fields = {"prompt": "a cat", "seed": "1", "steps": "4"}
    form = image_client.post("/generate", data=fields | {"strength": "0.5"}, files={"image": content})
    assert form.status_code == 200, form.text
    for text in (base64.b64encode(content).decode(), f"data:image/png;base64,{base64.b64encode(content).decode()}"):
        body = {"prompt": "a cat", "seed": 1, "steps": 4, "strength": 0.5, "image": text}
        assert image_client.post("/generate", json=body).content == form.content
    whole = image_client.post("/generate", data=fields)
    assert whole.status_code == 200
    assert whole.content != form.content
    assert "image" in str(image_client.get("/openapi.json").json()["paths"]["/generate"])


@pytest.mark.parametrize(
    ("image", "text"), [("a!", "image is no base64"), (base64.b64encode(b"x" * 99).decode(), "cannot be read")]
)
def test_what_is_no_image_is_refused(image_client: httpx.Client, image: str, text: str) -> None:
    answer = image_client.post("/generate", json={"prompt": "a", "image": image})
    assert answer.status_code == 422
    assert text in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "image"


def test_other_fields_are_no_files(image_client: httpx.Client) -> None:
    answer = image_client.post("/generate", data={"prompt": "a"}, files={"template": encode(8)})
    assert answer.status_code == 400
    assert "The field 'template' is a file. Send text." in answer.json()["error"]["message"]
