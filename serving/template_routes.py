"""Prompt templates: list, add, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from .bodies import JSON, read_body
from .errors import ApiError
from .openapi_schema import describe_body, describe_errors
from .service import get_service
from .template_store import MAX_NAME, MAX_TEMPLATES, Template, TemplateText

Name = Annotated[str, Path(pattern=r"^[a-z0-9_-]+$", max_length=MAX_NAME, description="The template's name.")]
router = APIRouter(prefix="/templates")


@router.get("", summary="List the prompt templates", responses=describe_errors())
def list_templates(request: Request) -> list[Template]:
    """Lists all templates, by name."""
    return get_service(request).templates.list_all()


@router.put(
    "/{name}",
    summary="Add or replace a prompt template",
    responses=describe_errors(400, 408, 413, 415, 422, 507),
    openapi_extra=describe_body(TemplateText, (JSON,)),
)
async def put_template(request: Request, name: Name) -> Template:
    """Adds a template, or replaces that of the same name."""
    body = await read_body(request, TemplateText, (JSON,))
    template = Template(name=name, text=body.text)
    if not get_service(request).templates.put(template):
        raise ApiError(507, f"There are {MAX_TEMPLATES} templates already. Remove one.")
    return template


@router.delete("/{name}", status_code=204, summary="Remove a prompt template", responses=describe_errors(404, 422))
def remove_template(request: Request, name: Name) -> Response:
    """Removes a template."""
    if not get_service(request).templates.remove(name):
        raise ApiError(404, f"There is no template '{name}'. List them at /templates.")
    return Response(status_code=204)
