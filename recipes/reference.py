"""Explains recipes: every key with its type, default and description, for the command line and docs/recipes.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from .frozen_model import FrozenModel, is_mapping, is_section, nested_section
from .schema import Recipe


@dataclass(frozen=True)
class KeyDescription:
    """What is known of a key of a recipe.

    Attributes:
        key: The dotted key, such as `quantize.scheme.bits`. NAME stands for a name that the user chooses.
        type: The accepted values in words, such as `4 | 8`; `section` for a section.
        default: The default as in YAML; None if the key is required, or is a section.
        description: What it does, in Markdown.
    """

    key: str
    type: str
    default: str | None
    description: str


def describe_schema(section: type[FrozenModel] = Recipe, prefix: str = "") -> Iterator[KeyDescription]:
    """Describes all keys of a recipe, in the order of the schema; a section comes before its keys.

    Args:
        section: The model to describe: the whole recipe or one of its sections.
        prefix: What the keys begin with, such as `quantize.`.
    """
    for name in section.model_fields:
        key, nested = f"{prefix}{name}", nested_section(section, name)
        yield _describe_key(section, name, key)
        if nested is None or nested.SAME_KEYS:
            continue
        yield from describe_schema(nested, f"{key}.NAME." if is_mapping(section, name) else f"{key}.")


def explain_recipe(recipe: Recipe) -> Iterator[tuple[KeyDescription, str | None]]:
    """Describes all keys of a resolved recipe with the values that they have in it.

    A section that the recipe does not have, such as `rknn`, is left out. Extra schemes are listed by their names.

    Yields:
        The description of a key, and its value as in YAML, or None for a section that has keys.
    """
    yield from _explain_section(recipe, "")


def resolve_recipe(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe with all defaults and with the steps of its method, as in YAML or JSON."""
    content = recipe.model_dump(mode="json", exclude={"large_model"})
    content["large_model"] = _to_plain(recipe.large_model)
    content["quantize"]["steps"] = list(recipe.quantize.resolved_steps)
    return content


def to_yaml(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    import yaml

    text = yaml.safe_dump(_to_plain(value), default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _describe_key(section: type[FrozenModel], name: str, key: str) -> KeyDescription:
    field, nested = section.model_fields[name], nested_section(section, name)
    if nested is not None and not nested.SAME_KEYS:
        return KeyDescription(key, "section", None, field.description or "")
    default = None if field.is_required() else to_yaml(field.get_default())
    return KeyDescription(key, _format_type(field.annotation, field.metadata), default, field.description or "")


def _explain_section(settings: FrozenModel, prefix: str) -> Iterator[tuple[KeyDescription, str | None]]:
    section = type(settings)
    for name in section.model_fields:
        value, key = getattr(settings, name), f"{prefix}{name}"
        description, nested = _describe_key(section, name, key), nested_section(section, name)
        if nested is None or nested.SAME_KEYS:
            yield description, to_yaml(value)
        elif is_mapping(section, name):
            yield description, None if value else to_yaml(value)
            for entry, nested in value.items():
                yield from _explain_section(nested, f"{key}.{entry}.")
        elif value is not None:
            yield description, None
            yield from _explain_section(value, f"{key}.")


def _to_plain(value: Any) -> Any:
    """The value without pydantic's models and Python's tuples."""
    if isinstance(value, FrozenModel):
        return value.model_dump(mode="json", exclude_unset=value.SAME_KEYS)
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _format_type(annotation: Any, metadata: list[Any]) -> str:
    """An annotation in words, such as `4 | 8`, `integer, at least 1` or `list of string`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if is_section(annotation):
        return "sections of this page"
    if origin is Annotated:
        extra = [
            part for entry in arguments[1:] for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])
        ]
        return _format_type(arguments[0], extra)
    if origin is Literal:
        return " | ".join(str(option) for option in arguments)
    if origin in (Union, UnionType):
        options = [_format_type(option, []) for option in arguments if option is not NoneType]
        return " | ".join(options)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            entry = _format_type(arguments[0], [])
            return f"list of ({entry})" if " | " in entry else f"list of {entry}"
        return "[height, width]"
    if origin is dict:
        return f"mapping of names to {_format_type(arguments[1], [])}"
    names = {str: "string", int: "integer", float: "number", bool: "true | false"}
    return ", ".join([names[annotation], *filter(None, map(_format_constraint, metadata))])


def _format_constraint(constraint: Any) -> str:
    """A constraint of annotated-types or pydantic in words; empty if it says nothing to a reader."""
    phrases = {"ge": "at least {}", "gt": "greater than {}", "multiple_of": "a multiple of {}"}
    return ", ".join(
        phrase.format(value)
        for name, phrase in phrases.items()
        if (value := getattr(constraint, name, None)) is not None
    )
