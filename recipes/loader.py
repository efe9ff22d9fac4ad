"""TODO"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import cast, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from ..common.errors import UserError
from .schema import Recipe

RECIPES_DIR = Path(__file__).parent


def recipe_names() -> list[str]:
    """The devices that recipes are shipped for."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """The recipe of a device that is shipped, or of a YAML file.

    Raises:
        UserError: unknown device, unreadable file, unknown key (the nearest known one is suggested), wrong value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES_DIR / f"{name}.yaml"
    if not path.exists():
        known = f"Devices: {', '.join(recipe_names())}."
        if path.parent == RECIPES_DIR:
            raise UserError(f"There is no recipe for the device {name!r}. {known}")
        raise UserError(f"There is no recipe file {path}. {known}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} is not a mapping of keys to values; start it with 'device: NAME'.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_explain_error(error)}") from error


def _explain_error(error: ValidationError) -> str:
    """The first thing that is wrong, in a sentence."""
    errors = error.errors()
    # A typo comes first: the key that was meant may be missing because of it.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _sibling_keys(first["loc"])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}."
        return f"the key {key!r} is unknown; {hint}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} = {first['input']!r}: {message[0].lower()}{message[1:]}." if key else f"{message}."


def _sibling_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    parts = iter(location[:-1])
    for part in parts:
        annotation = section.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)
            annotation = get_args(annotation)[1]
        section = cast(type[BaseModel], annotation)
    return list(section.model_fields)
