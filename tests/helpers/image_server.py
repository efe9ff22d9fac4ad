"""A server for images in OpenAI's form: it draws the quoted word of the prompt, on a ground of its own choice."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from .local_server import answer_json, run_server

IMAGES = "/v1/images/generations"


class ImageHandler(BaseHTTPRequestHandler):
    """Answers requests for images; anything else is unknown."""

    requests: list[dict[str, Any]]
    token = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != IMAGES:
            answer_json(self, 404, {"error": {"message": "no such route"}})
        elif self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            answer_json(self, 401, {"error": {"message": "token missing"}})
        elif "prompt" not in body:
            answer_json(self, 400, {"error": {"message": "prompt is missing"}})
        else:
            self.requests.append(body)
            answer_json(self, 200, {"created": 0, "data": [{"b64_json": _draw(body, len(self.requests))}]})

    def do_GET(self) -> None:
        answer_json(self, 404, {"detail": "Not Found"})

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def _draw(body: dict[str, Any], number: int) -> str:
    width, height = map(int, body["size"].split("x"))
    image = Image.new("RGB", (width, height), (200, 200, 100 + 10 * number))
    word = re.search(r'"([A-Z]+)"', body["prompt"])
    ImageDraw.Draw(image).text((2, height // 3), word[1] if word else "", (0, 0, 0), font_size=height // 4)
    stream = BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@contextmanager
def run_image_server(token: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Starts the server; yields its address and the requests for images that it answered."""
    requests: list[dict[str, Any]] = []
    handler = type("Handler", (ImageHandler,), {"requests": requests, "token": token})
    with run_server(handler) as address:
        yield address, requests
