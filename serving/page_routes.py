"""The page at `/`, and its style and scripts."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from .errors import ApiError

ASSETS = Path(__file__).parent / "assets"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {file.name: file for file in ASSETS.iterdir() if file.suffix in MEDIA_TYPES}
router = APIRouter(include_in_schema=False)


@router.get("/")
def get_page() -> Response:
    """Returns the page."""
    return FileResponse(ASSETS / "page.html", media_type="text/html")


@router.get("/assets/{name}")
def get_asset(name: str) -> Response:
    """Returns a file of the page."""
    if name not in FILES:
        raise ApiError(404, "The page has no such file. Open / instead.")
    return FileResponse(FILES[name], media_type=MEDIA_TYPES[FILES[name].suffix])
