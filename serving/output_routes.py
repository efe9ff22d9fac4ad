"""Generated images that are kept: list, get, remove."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from ..runtime.image_file import FORMATS, media_type
from .errors import ApiError
from .openapi_schema import describe_errors
from .output_store import StoredImage
from .service import get_service

MISSING = "There is no image of this name any more. List those that are kept at /images."
router = APIRouter(prefix="/images")


@router.get("", summary="List the images that are kept", responses=describe_errors())
def list_images(request: Request) -> list[StoredImage]:
    """Lists the facts of all images that are kept, the newest first."""
    return get_service(request).outputs.list_all()


@router.get(
    "/{name}",
    summary="Get an image",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {media_type(name): {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
        },
        **describe_errors(404),
    },
)
def get_image(request: Request, name: str) -> Response:
    """Returns the file of an image."""
    path = get_service(request).outputs.find(name)
    if path is None:
        raise ApiError(404, MISSING)
    return FileResponse(path)


@router.delete("/{name}", status_code=204, summary="Remove an image", responses=describe_errors(404))
def remove_image(request: Request, name: str) -> Response:
    """Removes an image."""
    if not get_service(request).outputs.remove(name):
        raise ApiError(404, MISSING)
    return Response(status_code=204)
