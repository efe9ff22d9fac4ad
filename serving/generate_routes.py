"""`POST /generate`: an image as a file, as JSON, or with its progress."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ..runtime.image_file import FORMATS, media_type
from .bodies import FORMS, JSON, GenerateBody, read_body
from .event_stream import MEDIA_TYPE as EVENT_STREAM
from .event_stream import stream_job
from .images import EncodedImage, ImageFacts
from .openapi_schema import EVENT, describe_body, describe_errors
from .service import Service, get_service

IMAGE_EVENT = "image"
HEADER_PREFIX = "X-Edgepress-"
logger = logging.getLogger(__name__)
router = APIRouter()


class ImageAnswer(ImageFacts):
    """An image as JSON."""

    data_url: str = Field(description="The image as a data URL.")
    name: str | None = Field(description="The name that it is kept by, for `GET /images/NAME`; null if it is not.")


@router.post(
    "/generate",
    summary="Generate an image",
    response_class=Response,
    responses={
        200: {
            "description": "The image, as `response` asks.",
            "content": {
                **{media_type(name): {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
                JSON: {"schema": ImageAnswer.model_json_schema()},
                EVENT_STREAM: {"schema": EVENT},
            },
        },
        **describe_errors(400, 404, 408, 413, 415, 422, 500, 503, 504),
    },
    openapi_extra=describe_body(GenerateBody, (*FORMS, JSON)),
)
async def generate(request: Request) -> Response:
    """Generates an image of a form or of JSON; the request is cancelled when its connection is closed."""
    service = get_service(request)
    body = await read_body(request, GenerateBody, (*FORMS, JSON))
    (image_request,) = await service.build(body)
    if service.settings.logs_prompts:
        logger.info("Prompt: %s", image_request.generation.prompt)
    if body.response == "events":
        job = service.submit([image_request])
        return stream_job(service, job, lambda image: _describe(service, image), IMAGE_EVENT, with_progress=True)
    (image,) = await service.run(request, [image_request])
    if body.response == "data_url":
        return JSONResponse(_describe(service, image))
    return Response(image.content, media_type=image.media_type, headers=_list_headers(service.store(image), image))


def _describe(service: Service, image: EncodedImage) -> dict[str, Any]:
    name = service.store(image)
    return ImageAnswer(**image.facts.model_dump(), data_url=image.to_data_url(), name=name).model_dump()


def _list_headers(name: str | None, image: EncodedImage) -> dict[str, str]:
    """The facts of an image as headers; the warnings are JSON, in ASCII."""
    facts = image.facts
    values = {
        "Seed": str(facts.seed),
        "Steps": str(facts.steps),
        "Seconds": f"{facts.seconds:g}",
        "Warnings": json.dumps(facts.warnings),
    }
    if name is not None:
        values["Image"] = name
    return {f"{HEADER_PREFIX}{key}": value for key, value in values.items()}
