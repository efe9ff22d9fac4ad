"""Loads the recipes that are shipped, and those that users write."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..common.errors import UserError
from ..common.suggest import suggest_name
from .deprecation import upgrade_settings
from .schema import FrozenModel, Recipe, is_mapping, nested_section

RECIPES_DIR = Path(__file__).parent
MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key <<, which may repeat keys that it merges

Settings = TypeVar("Settings", bound=FrozenModel)

_logger = logging.getLogger("edgepress")


def recipe_names() -> list[str]:
    """The names of the recipes that are shipped, sorted."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Loads a shipped recipe by name, or a YAML file.

    Keys of earlier releases are read, with a warning that names the new key.

    Args:
        name_or_path: The name of a shipped recipe, such as `orin`, or the path of a file that ends in .yaml or .yml.

    Raises:
        UserError: There is no such recipe, the file cannot be read, a key is unknown (the message suggests the nearest
            one) or given twice, or a value is invalid.
    """
    path = _find_recipe(str(name_or_path))
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} is not a mapping of keys to values. Start it with 'device: NAME'.")

    def warn(old: str, new: str) -> None:
        _logger.warning("Recipe %s: '%s' is deprecated; write '%s' instead.", path, old, new)

    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_explain_error(error)}") from error
    upgrade_settings(content, report=warn)
    return recipe


def _find_recipe(name: str) -> Path:
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else RECIPES_DIR / f"{name}.yaml"
    if path.exists() and (is_path or name in recipe_names()):
        return path
    known = f"Shipped recipes: {', '.join(recipe_names())}."
    raise UserError(f"There is no recipe file {path}. {known}" if is_path else f"There is no recipe {name!r}. {known}")


class _Loader(yaml.SafeLoader):
    """Reads plain YAML and rejects duplicate keys, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE_TAG]
        duplicates = [key for number, key in enumerate(keys) if key in keys[:number]]
        if duplicates:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {duplicates[0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def validate_settings(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Makes a recipe, or a section of one, from values.

    Raises:
        UserError: A value is invalid. The message names the setting, its value and what is accepted.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain_value(error.errors()[0])) from error


def _explain_value(details: ErrorDetails) -> str:
    """A mistake in a value, as a sentence."""
    key = ".".join(map(str, details["loc"]))
    message = details["msg"].removeprefix("Value error, ")
    return f"{key} = {details['input']!r}: {message[0].lower()}{message[1:]}." if key else f"{message}."


def _explain_error(error: ValidationError) -> str:
    """The first mistake, as a sentence."""
    errors = error.errors()
    # Report a typo first: the key that was meant may be missing because of it.
    first = next((details for details in errors if details["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {suggest_name(str(first['loc'][-1]), _sibling_keys(first['loc']))}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it."
    return _explain_value(first)


def _sibling_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one was given."""
    section: type[FrozenModel] = Recipe
    parts = iter(location[:-1])
    for part in parts:
        nested = nested_section(section, str(part))
        assert nested is not None  # only sections reject unknown keys
        if is_mapping(section, str(part)):
            next(parts, None)
        section = nested
    return list(section.model_fields)
