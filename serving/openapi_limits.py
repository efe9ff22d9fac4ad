"""The limits of a running server in its OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .openai_routes import EDITS, router
from .openapi_schema import EMPTY, NULL
from .request_builder import RequestBuilder


def add_limits(description: dict[str, Any], builder: RequestBuilder) -> None:
    """Adds the limits of a server to the description of its bodies, in place."""
    limits = builder.limits
    if not builder.takes_images:
        del description["paths"][f"{router.prefix}{EDITS}"]
    heights, widths = builder.list_sides()
    for properties in _iter_properties(description):
        properties["prompt"]["maxLength"] = limits.max_prompt_characters
        if "negative_prompt" in properties:
            properties["negative_prompt"] = _limit(
                properties["negative_prompt"], maxLength=limits.max_prompt_characters
            )
        for side, values in (("width", widths), ("height", heights)):
            if side in properties:
                properties[side] = _limit(properties[side], enum=values)
        if not builder.takes_images:
            properties.pop("image", None)
            properties.pop("strength", None)
        if "n" in properties:
            properties["n"] = _limit(properties["n"], maximum=limits.max_images)
        if "size" in properties:
            sizes = [f"{width}x{height}" for width in widths for height in heights]
            properties["size"] = _limit(properties["size"], enum=["auto", *sizes], pattern=None)
        if "preset" in properties:
            properties["preset"] = _limit(properties["preset"], enum=list(builder.presets))
        properties["steps"] = _limit(properties["steps"], maximum=limits.max_steps)


def _limit(field: dict[str, Any], **limits: Any) -> dict[str, Any]:
    """Narrows what a field may be; no value stays allowed where it was."""
    if "anyOf" in field:
        options = [option if option in (NULL, EMPTY) else _limit(option, **limits) for option in field["anyOf"]]
        return field | {"anyOf": options}
    narrowed = field | limits
    return {key: value for key, value in narrowed.items() if value is not None}


def _iter_properties(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields of all bodies that hold a prompt."""
    for methods in description["paths"].values():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                properties = content["schema"].get("properties", {})
                if "prompt" in properties:
                    yield properties
