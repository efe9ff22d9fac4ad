"""OpenAI's routes for images, so that clients of that API work.

`POST /v1/images/generations`, `POST /v1/images/edits` and `GET /v1/models`.
"""

from __future__ import annotations

import logging
from time import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from .bodies import JSON, MULTIPART, EditsBody, ImagesBody, read_body
from .errors import ApiError
from .event_stream import MEDIA_TYPE as EVENT_STREAM
from .event_stream import stream_job
from .images import EncodedImage
from .openapi_schema import EVENT, describe_body, describe_errors
from .service import Service, get_service

COMPLETED_EVENT, EDITED_EVENT = "image_generation.completed", "image_edit.completed"
EDITS = "/images/edits"
logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1")


class ImageData(BaseModel):
    """An image of an answer."""

    b64_json: str | None = Field(default=None, description="The image in base64.")
    url: str | None = Field(default=None, description="Where the image is on this server.")


class ImagesAnswer(BaseModel):
    """The answer to a request for images."""

    created: int = Field(description="When the images were generated, in seconds since 1970.")
    data: list[ImageData] = Field(description="The images.")
    output_format: str = Field(description="Their format.")
    size: str = Field(description="Their width and height, such as `512x768`.")
    seed: int = Field(description="Not OpenAI's: the seed of the first image.")
    warnings: list[str] = Field(description="Not OpenAI's: what the prompt's author should know.")


class ModelEntry(BaseModel):
    """A model of the server."""

    id: str = Field(description="Its name.")
    object: str = Field(default="model", description="`model`.")
    created: int = Field(default=0, description="0: not known.")
    owned_by: str = Field(default="edgepress", description="`edgepress`.")


class ModelList(BaseModel):
    """The models of the server."""

    object: str = Field(default="list", description="`list`.")
    data: list[ModelEntry] = Field(description="The one that it has.")


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/ImagesAnswer"}},
            EVENT_STREAM: {"schema": EVENT},
        },
        "model": ImagesAnswer,
    },
    **describe_errors(400, 404, 408, 413, 415, 422, 500, 503, 504),
}


@router.post(
    "/images/generations",
    summary="Generate images, in OpenAI's form",
    response_class=Response,
    responses=ANSWERS,
    openapi_extra=describe_body(ImagesBody, (JSON,)),
)
async def generate_images(request: Request) -> Response:
    """Generates images; the request is cancelled when its connection is closed."""
    return await _answer(request, await read_body(request, ImagesBody, (JSON,)), COMPLETED_EVENT)


@router.post(
    EDITS,
    summary="Generate images that start from another one, in OpenAI's form",
    response_class=Response,
    responses=ANSWERS,
    openapi_extra=describe_body(EditsBody, (MULTIPART,)),
)
async def edit_images(request: Request) -> Response:
    """Generates images that start from another one; the request is cancelled when its connection is closed."""
    return await _answer(request, await read_body(request, EditsBody, (MULTIPART,)), EDITED_EVENT)


async def _answer(request: Request, body: ImagesBody, event: str) -> Response:
    """Generates the images of a body; `event` is the name of what a stream ends with."""
    service = get_service(request)
    if body.response_format == "url" and not service.settings.limits.keep_images:
        raise ApiError(422, "This server keeps no images. Set response_format to 'b64_json'.", "response_format")
    requests = await service.build(body)
    if service.settings.logs_prompts:
        logger.info("Prompt: %s", requests[0].generation.prompt)
    if body.stream:
        job = service.submit(requests)
        return stream_job(
            service, job, lambda image: _describe_event(request, service, body, image, event), event, False
        )
    images = await service.run(request, requests)
    facts = images[0].facts
    answer = ImagesAnswer(
        created=int(time()),
        data=[_describe(request, service, body, image) for image in images],
        output_format=facts.format,
        size=f"{facts.width}x{facts.height}",
        seed=facts.seed,
        warnings=facts.warnings,
    )
    return JSONResponse(answer.model_dump())


@router.get("/models", summary="List the model, in OpenAI's form", responses=describe_errors())
async def list_models(request: Request) -> ModelList:
    """Lists the server's model, by the name of its artifact."""
    return ModelList(data=[ModelEntry(id=get_service(request).settings.artifact.resolve().name)])


def _describe(request: Request, service: Service, body: ImagesBody, image: EncodedImage) -> ImageData:
    name = service.store(image)
    if body.response_format == "url" and name is not None:
        return ImageData(url=str(request.url_for("get_image", name=name)))
    return ImageData(b64_json=image.to_base64())


def _describe_event(
    request: Request, service: Service, body: ImagesBody, image: EncodedImage, event: str
) -> dict[str, Any]:
    facts = image.facts
    return {
        "type": event,
        "created_at": int(time()),
        "size": f"{facts.width}x{facts.height}",
        "output_format": facts.format,
        **_describe(request, service, body, image).model_dump(exclude_none=True),
    }
