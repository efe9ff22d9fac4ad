"""OpenAI's routes, called by OpenAI's own client."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO

import httpx
import openai
import pytest
from helpers.server import TOKEN, RunningServer
from PIL import Image


@pytest.fixture
def api(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as opened:
        yield opened


def test_images_in_base64(api: openai.OpenAI) -> None:
    answer = api.images.generate(model="any", prompt="a red teapot", n=2, size="64x32", extra_body={"seed": 5})  # type: ignore[arg-type]
    assert answer.data is not None
    contents = [base64.b64decode(image.b64_json or "") for image in answer.data]
    assert [Image.open(BytesIO(content)).size for content in contents] == [(64, 32)] * 2
    assert contents[0] != contents[1]
    assert answer.size == "64x32"
    second = api.images.generate(prompt="a red teapot", size="64x32", extra_body={"seed": 6})  # type: ignore[arg-type]
    assert second.data is not None
    assert base64.b64decode(second.data[0].b64_json or "") == contents[1]


def test_an_image_by_its_url(api: openai.OpenAI, client: httpx.Client) -> None:
    answer = api.images.generate(prompt="a red teapot", response_format="url", output_format="webp")
    assert answer.data is not None
    content = client.get(answer.data[0].url or "").content
    assert Image.open(BytesIO(content)).format == "WEBP"


def test_a_stream_ends_with_the_image(api: openai.OpenAI) -> None:
    stream = api.images.generate(prompt="a red teapot", stream=True, size="auto", quality="low")
    (event,) = list(stream)
    assert event.type == "image_generation.completed"
    assert Image.open(BytesIO(base64.b64decode(event.b64_json))).size == (128, 128)


def test_the_model_is_listed(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["small"]


def test_errors_are_those_of_the_client(api: openai.OpenAI, server: RunningServer) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="n is 3: this server generates at most 2"):
        api.images.generate(prompt="x", n=3)
    with pytest.raises(openai.UnprocessableEntityError, match="background"):
        api.images.generate(prompt="x", background="transparent")
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="token"),
    ):
        stranger.models.list()
