"""Parts of the OpenAPI description that routes share: bodies and errors."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from .bodies import JSON
from .errors import ErrorAnswer

NULL, EMPTY = {"type": "null"}, {"const": ""}  # what a field may be that has no value, in JSON and in a form
ANNOTATIONS = {"title", "description", "default", "examples"}
# Of one event, as OpenAPI tools understand streams of them.
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string", "description": "JSON."}},
}


def describe_body(schema: type[BaseModel], media_types: Collection[str]) -> dict[str, Any]:
    """Describes a body, as FastAPI takes it in `openapi_extra`."""
    content = {
        name: {"schema": schema.model_json_schema() if name == JSON else _describe_form(schema)} for name in media_types
    }
    return {"requestBody": {"required": True, "content": content}}


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describes the answers of a route that fails, as FastAPI takes them in `responses`."""
    everywhere = (401, 403)
    return {
        status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in (*everywhere, *statuses)
    }


def _describe_form(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema of a form: a field may be empty where JSON leaves it out or has null."""
    description = schema.model_json_schema()
    for name, field in description["properties"].items():
        if name in description["required"]:
            continue
        options = field.pop("anyOf", None) or [{key: field.pop(key) for key in set(field) - ANNOTATIONS}]
        field["anyOf"] = [EMPTY if option == NULL else option for option in options]
        if EMPTY not in field["anyOf"]:
            field["anyOf"].append(EMPTY)
        if field.get("default", "") is None:
            del field["default"]
    return description
