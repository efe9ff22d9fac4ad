"""Servers as candidates: one in OpenAI's form, edgepress's own, and none."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from helpers.image_server import run_image_server
from helpers.server import TOKEN, run_server
from helpers.small_artifact import write_small_artifact

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.server import ImageServer, connect
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt, prompt_seed
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.pipeline import ImagePipeline

SAMPLING = SamplingParams(height=64, width=96, steps=2, guidance=0.0)
PROMPT = Prompt(id="a", prompt='a sign: "OPEN"', language="en", lines=("OPEN",))


def test_openais_form_gets_the_prompt_and_the_size() -> None:
    with run_image_server() as (url, requests):
        server = connect(url)
        server.check(SAMPLING)
        generated = server.generate(PROMPT, 0, SAMPLING)
    assert (server.takes_noise, server.read_memory()) == (False, None)
    assert generated.image.shape == (64, 96, 3)
    assert [(body["prompt"], body["n"], body["size"]) for body in requests] == [(PROMPT.prompt, 1, "96x64")]
    assert "seed" not in requests[0]


def test_openais_form_has_no_place_for_the_guidance_of_a_prompt() -> None:
    special = [PROMPT, PROMPT.model_copy(update={"id": "b", "guidance": 4.0})]
    with run_image_server() as (url, requests):
        server = connect(url)
        server.check_prompts([PROMPT])
        with pytest.raises(UserError, match=r"neither guidance nor a negative prompt.*1 of 2 prompts.*'b'"):
            server.check_prompts(special)
        with pytest.raises(UserError, match="Remove them from the prompts"):
            server.check_prompts([PROMPT.model_copy(update={"negative_prompt": "blurry"})])
    assert not requests


def test_a_token_is_demanded_and_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_image_server("secret") as (url, requests):
        monkeypatch.delenv("EDGEPRESS_TOKEN", raising=False)
        with pytest.raises(UserError, match=r"wants a token \(token missing\)\. Set \$EDGEPRESS_TOKEN to it"):
            connect(url).generate(PROMPT, 0, SAMPLING)
        monkeypatch.setenv("EDGEPRESS_TOKEN", "secret")
        connect(url).generate(PROMPT, 0, SAMPLING)
    assert len(requests) == 1


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"The server {url} does not answer \(.*refused.*\)\. Start it"):
            connect(url)
    with pytest.raises(UserError, match=r"must not hold a password\. Set \$EDGEPRESS_TOKEN"):
        connect("http://me:secret@127.0.0.1:1")


def test_a_server_for_something_else_is_named() -> None:
    neither = "answers, but has neither edgepress's /generate nor OpenAI's"
    with run_image_server() as (url, _), pytest.raises(UserError, match=neither):
        connect(f"{url}/other")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>", "answers with something else than JSON"),
        (b"[1]", "answers with something else than a JSON object"),
        (b'{"data": []}', r"answers without an image in data\[0\]\.b64_json"),
        (b'{"data": [{"b64_json": "aGVsbG8="}]}', "answers with something else than an image"),
        (b"", "ended the connection within its answer"),
    ],
)
def test_an_answer_without_an_image_is_one_sentence(content: bytes, sentence: str) -> None:
    length = len(content) or 100

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(UserError, match=f"{url} {sentence}") as raised:
            ImageServer(url, "", "", False, {}).generate(PROMPT, 0, SAMPLING)
    assert "<_io" not in str(raised.value)


@pytest.mark.slow
def test_edgepress_generates_from_the_noise_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tmp_path / "artifact"
    write_small_artifact(artifact)
    request = GenerationRequest(PROMPT.prompt, prompt_seed(PROMPT.id, 1), SAMPLING.steps, (64, 96))
    expected = np.asarray(ImagePipeline(artifact).generate(request))
    monkeypatch.setenv("EDGEPRESS_TOKEN", TOKEN)
    with run_server(artifact, tmp_path, "--max-side", "96") as running:
        server = connect(running.url)
        server.check(SAMPLING)
        server.check_prompts([PROMPT.model_copy(update={"guidance": 4.0})])
        generated, memory = server.generate(PROMPT, 1, SAMPLING), server.read_memory()
        with pytest.raises(UserError, match="at most 96 pixels a side"):
            server.check(SamplingParams(height=128, width=128, steps=2, guidance=0.0))
        with pytest.raises(UserError, match="takes at most"):
            server.check(SamplingParams(height=64, width=64, steps=10_000, guidance=0.0))
    assert server.takes_noise
    assert np.array_equal(generated.image, expected)
    assert memory is not None
    assert memory > 10 * 2**20
