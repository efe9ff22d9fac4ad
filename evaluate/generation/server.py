"""Generates images with a server: `edgepress serve`, or any that has OpenAI's `POST /v1/images/generations`.

The noise of edgepress's server follows from the seed alone, as that of the reference does. OpenAI's form has no seed,
and where a server takes one, what noise it makes of it is its own: then images can be judged one by one, not compared.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from io import BytesIO
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np

from ...common.errors import UserError, summarize_error
from ...pipelines.sampling import SamplingParams
from ...prompts.prompt import Prompt, prompt_seed
from ..images.types import ImageArray

TOKEN_VARIABLE = "EDGEPRESS_TOKEN"  # as for `edgepress serve`
SERVER_ADVICE = "Give the address of a server for images, such as that of 'edgepress serve'."
CONNECT_TIMEOUT_S = 10.0  # for an answer that takes no work
IMAGE_TIMEOUT_S = 3600.0
NOISE_BITS = 0xFFFFFFFF  # of a seed, which the noise depends on
OWN_NOISE = "the server makes its own noise, so its images are not those of the reference's noise"
GENERATE, IMAGES, MODELS, SERVER, METRICS = "/generate", "/v1/images/generations", "/v1/models", "/server", "/metrics"
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)
MAX_MESSAGE = 200  # characters of what a server says


class ServerImage(NamedTuple):
    """An image that a server generated.

    Attributes:
        image: The image.
        notice: What the server warned of.
    """

    image: ImageArray
    notice: str


@dataclass(frozen=True)
class ImageServer:
    """A server that answers.

    Attributes:
        url: Its address, without a final slash.
        model: What it calls its model.
        engine: What it says that runs it; empty if it says nothing.
        takes_noise: Whether the noise follows from the seed as in the reference.
        limits: What edgepress's server says about sizes and steps; empty of another one.
    """

    url: str
    model: str
    engine: str
    takes_noise: bool
    limits: Mapping[str, int]

    def check(self, sampling: SamplingParams) -> None:
        """Checks that the server can generate such images, as far as it says so.

        Raises:
            UserError: It cannot.
        """
        if not self.takes_noise:
            return
        side, multiple = max(sampling.height, sampling.width), self.limits["side_step"]
        if side > self.limits["max_side"] or sampling.height % multiple or sampling.width % multiple:
            raise UserError(
                f"{self.url} generates images of at most {self.limits['max_side']} pixels a side, in steps of "
                f"{multiple}, but {sampling.height}x{sampling.width} was requested. Set evaluation.size, or raise the "
                "server's limit."
            )
        if sampling.steps > self.limits["max_steps"]:
            raise UserError(
                f"{self.url} takes at most {self.limits['max_steps']} steps, but {sampling.steps} were requested. Set "
                "evaluation.steps."
            )

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Checks that a request can hold what the prompts say: OpenAI's form has a prompt and a size.

        Raises:
            UserError: It cannot.
        """
        special = [prompt for prompt in prompts if prompt.guidance is not None or prompt.negative_prompt]
        if special and not self.takes_noise:
            raise UserError(
                f"{self.url} takes neither guidance nor a negative prompt: OpenAI's form has none. {len(special)} of "
                f"{len(prompts)} prompts have their own, such as {special[0].id!r}. Remove them from the prompts, or "
                "evaluate an 'edgepress serve'."
            )

    def generate(self, prompt: Prompt, seed: int, sampling: SamplingParams) -> ServerImage:
        """Generates an image.

        Args:
            prompt: The prompt.
            seed: The seed, from 0.
            sampling: Size, steps and guidance; a server in OpenAI's form gets the size only.

        Raises:
            UserError: The server refuses, fails, or answers with something else than an image.
        """
        if self.takes_noise:
            return self._generate_alike(prompt, seed, sampling)
        size = f"{sampling.width}x{sampling.height}"
        body = {"model": self.model, "prompt": prompt.prompt, "n": 1, "size": size, "response_format": "b64_json"}
        answer = _parse_object(self.url, _request(self.url, IMAGES, body, IMAGE_TIMEOUT_S))
        try:
            content = base64.b64decode(answer["data"][0]["b64_json"], validate=True)
        except (LookupError, TypeError, binascii.Error) as error:
            raise UserError(f"{self.url} answers without an image in data[0].b64_json. {SERVER_ADVICE}") from error
        return ServerImage(_decode(self.url, content), "")

    def read_memory(self) -> int | None:
        """The resident memory of the server's process in bytes, if it tells."""
        if not self.takes_noise:
            return None
        match = RESIDENT.search(_request(self.url, METRICS, None, CONNECT_TIMEOUT_S).decode("utf-8", "replace"))
        return int(float(match[1])) if match else None

    def _generate_alike(self, prompt: Prompt, seed: int, sampling: SamplingParams) -> ServerImage:
        body: dict[str, Any] = {
            "prompt": prompt.prompt,
            "seed": prompt_seed(prompt.id, seed) & NOISE_BITS,
            "steps": sampling.steps,
            "width": sampling.width,
            "height": sampling.height,
            "guidance": prompt.choose_guidance(sampling.guidance),
            "response": "data_url",
        }
        negative = prompt.choose_negative_prompt(sampling.negative_prompt)
        if body["guidance"] and negative:
            body["negative_prompt"] = negative
        answer = _parse_object(self.url, _request(self.url, GENERATE, body, IMAGE_TIMEOUT_S))
        _, _, encoded = str(answer.get("data_url")).partition(",")
        try:
            content = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise UserError(f"{self.url} answers without an image in data_url. {SERVER_ADVICE}") from error
        warnings = [warning for warning in answer.get("warnings", ()) if "truncated" in str(warning)]
        return ServerImage(_decode(self.url, content), " ".join(warnings))


def connect(url: str) -> ImageServer:
    """Asks a server what it is.

    Raises:
        UserError: It does not answer, wants a token, or has neither API.
    """
    if urlsplit(url).username or urlsplit(url).password:
        raise UserError(f"The address of a server must not hold a password. Set ${TOKEN_VARIABLE} to its token.")
    try:
        described = _parse_object(url, _request(url, SERVER, None, CONNECT_TIMEOUT_S))
        limits = {name: int(described[name]) for name in ("max_side", "side_step", "max_steps")}
        return ImageServer(url, str(described["model"]), str(described["engine"]), True, limits)
    except (_StatusError, UserError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, _UnreachableError) or (isinstance(error, _StatusError) and error.status in (401, 403)):
            raise
    return _connect_openai(url)


def _connect_openai(url: str) -> ImageServer:
    """A server in OpenAI's form: an empty request is refused there, and elsewhere the route is unknown."""
    try:
        _request(url, IMAGES, {}, CONNECT_TIMEOUT_S)
    except _StatusError as error:
        if error.status in (404, 405, 501):
            raise UserError(
                f"{url} answers, but has neither edgepress's {GENERATE} nor OpenAI's {IMAGES}. {SERVER_ADVICE}"
            ) from error
    try:
        models = _parse_object(url, _request(url, MODELS, None, CONNECT_TIMEOUT_S))["data"]
        model = str(models[0]["id"])
    except (UserError, LookupError, TypeError):  # many servers have one model, and no list
        model = ""
    return ImageServer(url, model, "", False, {})


class _UnreachableError(UserError):
    """No answer."""


class _StatusError(UserError):
    """An answer that is an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _request(url: str, route: str, body: Mapping[str, Any] | None, timeout: float) -> bytes:
    """Sends a request, with JSON if there is a body, and returns the content of the answer."""
    headers = {"Accept": "application/json"}
    if token := os.environ.get(TOKEN_VARIABLE):
        headers["Authorization"] = f"Bearer {token}"
    content = None
    if body is not None:
        content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        with urlopen(Request(url + route, content, headers), timeout=timeout) as answer:
            received: bytes = answer.read()
            return received
    except HTTPError as error:
        reason = _describe_error(error)
        if error.code in (401, 403):
            raise _StatusError(f"{url} wants a token ({reason}). Set ${TOKEN_VARIABLE} to it.", error.code) from error
        raise _StatusError(
            f"{url}{route} answers {error.code} ({reason}). Check the server's log.", error.code
        ) from error
    except IncompleteRead as error:
        raise _UnreachableError(
            f"The server {url} ended the connection within its answer. Check the server's log."
        ) from error
    except (URLError, OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        reason = summarize_error(cause)
        raise _UnreachableError(
            f"The server {url} does not answer ({reason}). Start it, or correct the address."
        ) from error


def _describe_error(error: HTTPError) -> str:
    """What a server says about an error: the message in its JSON, or else its status in words."""
    try:
        content = json.loads(error.read())
        details = content.get("error", content) if isinstance(content, dict) else content
        message = details.get("message") or details.get("detail") if isinstance(details, dict) else details
    except (ValueError, OSError, HTTPException):
        message = None
    text = " ".join(str(message or error.reason).split()).rstrip(".")
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"


def _parse_object(url: str, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError as error:
        raise UserError(f"{url} answers with something else than JSON. {SERVER_ADVICE}") from error
    if not isinstance(answer, dict):
        raise UserError(f"{url} answers with something else than a JSON object. {SERVER_ADVICE}")
    return answer


def _decode(url: str, content: bytes) -> ImageArray:
    """An image (height, width, 3), uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{url} answers with something else than an image. {SERVER_ADVICE}") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{url} answers with an image that cannot be read ({summarize_error(error)}). {SERVER_ADVICE}"
        ) from error
