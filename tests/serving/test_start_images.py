"""Images to start from, as requests hold them while they wait."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from io import BytesIO
from pathlib import Path

import pytest
from helpers.small_artifact import write_small_artifact
from PIL import Image

from edgepress.serving.app import open_service
from edgepress.serving.bodies import EditsBody, GenerateBody
from edgepress.serving.errors import ApiError
from edgepress.serving.service import Service
from edgepress.serving.settings import ServerSettings


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "small" / "onnx").mkdir(parents=True)
    write_small_artifact(tmp_path / "small", has_encoder=True)
    return open_service(ServerSettings(tmp_path / "small", tmp_path / "state"))


def encode(image: Image.Image) -> str:
    stream = BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_a_waiting_request_holds_the_image_in_the_size_that_it_asks_for(service: Service) -> None:
    image = Image.effect_noise((600, 300), 50).convert("RGB")
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    bodies = [
        GenerateBody(prompt="a", image=encode(image), width=64, height=48),
        EditsBody(prompt="a", image=encode(image), size="64x48", n=2),
    ]
    for body, count in zip(bodies, (1, 2), strict=True):
        requests = asyncio.run(service.build(body))
        assert len(requests) == count
        for request in requests:
            assert request.generation.image == image.resize((64, 48), Image.Resampling.LANCZOS)
            assert request.start_sha256 == digest
        assert not body.image


def test_the_event_loop_runs_while_an_image_is_decoded(service: Service) -> None:
    body = GenerateBody(prompt="a", image=encode(Image.new("RGB", (1500, 1500), "red")))

    async def count_turns() -> int:
        building, turns = asyncio.create_task(service.build(body)), 0
        while not building.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(count_turns()) > 20


def test_what_is_no_image_is_refused_before_it_waits(service: Service) -> None:
    for text, message in (("a!", "is no base64"), (encode(Image.new("RGB", (64, 64)))[:80], "cannot be read")):
        with pytest.raises(ApiError, match=message):
            asyncio.run(service.build(GenerateBody(prompt="a", image=text)))
