"""Images that start from another one, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import httpx
import openai
import pytest
from helpers.server import TOKEN, RunningServer, run_server
from helpers.small_artifact import write_small_artifact
from PIL import Image

from edgepress.runtime.image_metadata import read_origin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "small" / "onnx").mkdir(parents=True)
    write_small_artifact(folder / "small", has_encoder=True)
    with run_server(folder / "small", folder) as server:
        yield server


@pytest.fixture
def image_client(image_server: RunningServer) -> Iterator[httpx.Client]:
    with image_server.client() as client:
        yield client


@pytest.fixture
def api(image_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{image_server.url}/v1", api_key=TOKEN, max_retries=0) as opened:
        yield opened


def encode(*size: int, image_format: str = "PNG") -> bytes:
    stream = BytesIO()
    width, height = size if len(size) == 2 else size * 2
    Image.effect_noise((width, height), 50).convert("RGB").save(stream, image_format)
    return stream.getvalue()


def write_bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes whose pixels, all black, would fill the memory."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + width // 8)) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def test_a_form_takes_a_file_and_json_base64(image_client: httpx.Client) -> None:
    content = encode(300)  # larger than bodies without an image may be
    fields = {"prompt": "a cat", "seed": "1", "steps": "4"}
    form = image_client.post("/generate", data=fields | {"strength": "0.5"}, files={"image": content})
    assert form.status_code == 200, form.text
    pixels = Image.open(BytesIO(content)).tobytes()
    assert read_origin(Image.open(BytesIO(form.content)))["image_sha256"] == hashlib.sha256(pixels).hexdigest()
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


def test_openais_client_edits_an_image_as_generate_does(api: openai.OpenAI, image_client: httpx.Client) -> None:
    content = encode(64, 32)
    answer = api.images.edit(image=("a.png", content), prompt="a cat", n=2, extra_body={"seed": 1, "strength": 0.5})
    assert answer.data is not None
    images = [base64.b64decode(image.b64_json or "") for image in answer.data]
    assert answer.size == "64x32"  # that of the image
    for index, image in enumerate(images):
        fields = {"prompt": "a cat", "seed": f"{1 + index}", "strength": "0.5"}
        assert image_client.post("/generate", data=fields, files={"image": content}).content == image
    listed = api.images.edit(image=[("a.png", content)], prompt="a cat", size="32x32", response_format="url")  # type: ignore[arg-type]
    assert listed.data is not None
    assert Image.open(BytesIO(image_client.get(listed.data[0].url or "").content)).size == (32, 32)


def test_the_stream_of_an_edit_ends_with_its_event(api: openai.OpenAI) -> None:
    (event,) = list(api.images.edit(image=("a.webp", encode(32, image_format="WEBP")), prompt="a cat", stream=True))
    assert event.type == "image_edit.completed"
    assert Image.open(BytesIO(base64.b64decode(event.b64_json))).size == (32, 32)


def test_an_image_keeps_its_shape(image_client: httpx.Client) -> None:
    """The server's limit is 128 pixels, the artifact's size."""
    for size, expected in (((600, 300), (128, 64)), ((50, 100), (48, 96)), ((8, 8), (16, 16))):
        answer = image_client.post("/generate", data={"prompt": "a"}, files={"image": encode(*size)})
        assert Image.open(BytesIO(answer.content)).size == expected


def test_what_an_edit_cannot_use_is_refused(api: openai.OpenAI) -> None:
    image = ("a.png", encode(32))
    with pytest.raises(openai.UnprocessableEntityError, match="This server takes no masks"):
        api.images.edit(image=image, mask=image, prompt="a cat")
    with pytest.raises(openai.BadRequestError, match="The field 'image' is given twice"):
        api.images.edit(image=[image, image], prompt="a cat")
    with pytest.raises(openai.BadRequestError, match="The form has more than 2 files"):
        api.images.edit(image=[image, image, image], prompt="a cat")
    with pytest.raises(openai.UnprocessableEntityError, match=r"strength = .2.: it must be at most 1"):
        api.images.edit(image=image, prompt="a cat", extra_body={"strength": 2})


@pytest.mark.parametrize("path", ["/generate", "/v1/images/edits"])
def test_images_beyond_the_limits_are_refused(image_client: httpx.Client, path: str) -> None:
    contents = {
        write_bomb(20_000, 20_000): (422, "has too many pixels. Give one of at most 16,777,216"),
        write_bomb(5_000, 5_000): (422, "has 5000 x 5000 pixels"),
        encode(32)[:-40]: (422, "The image cannot be read"),
        encode(32, image_format="BMP"): (422, "its format is unknown"),
        b"": (422, "The file of the field 'image' is empty"),
        bytes(17 * 2**20): (413, "larger than 16777216 bytes"),
    }
    for content, (status, text) in contents.items():
        answer = image_client.post(path, data={"prompt": "a"}, files={"image": ("a", content)})
        assert answer.status_code == status
        assert text in answer.json()["error"]["message"]
    assert image_client.get("/healthz").status_code == 200


def test_a_server_without_an_encoder_says_how_to_get_one(client: httpx.Client) -> None:
    answer = client.post("/v1/images/edits", data={"prompt": "a"}, files={"image": encode(32)})
    assert answer.status_code == 422
    assert "--extra-graph vae_encoder" in answer.json()["error"]["message"]
    assert "/v1/images/edits" not in client.get("/openapi.json").json()["paths"]
