"""Finds values in configs of diffusers' models that are of another kind than the class takes: it stores them unread.

Annotations in diffusers are rough: a number where a list is declared, or the other way round, is left to the class.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.validation import format_value
from ..storage.recovery import advise_recovery
from .empty_modules import resolve_class

NUMBERS = frozenset({int, float})
JSON_TYPES = frozenset({bool, int, float, str, dict, type(None)})
CONTAINERS = (Union, UnionType, list, tuple)


def require_config_values(config_file: Path, library: str, class_name: str, config: Mapping[str, Any]) -> None:
    """Checks that the values of a config are of the kinds that its class, or its library, takes.

    Args:
        config_file: The config.json, for messages.
        library: The class's library, as model_index.json names it.
        class_name: The class.
        config: The config.

    Raises:
        UserError: A value is of another kind.
    """
    try:
        cls = resolve_class(library, class_name)
    except (AttributeError, ImportError):
        return  # building it says why
    model_type = config.get("model_type")
    malformed = find_malformed_value(cls, config) if hasattr(cls, "from_config") else ""
    if not isinstance(model_type, str | None):
        malformed = f"model_type = {format_value(model_type)}: it must be text"
    if malformed:
        raise UserError(
            f"{config_file} does not describe {add_article(class_name)}: {malformed}. {advise_recovery(config_file)}"
        )


def find_malformed_value(cls: Any, config: Mapping[str, Any]) -> str:
    """Finds a value that is of another kind than a class declares by annotation and default.

    Args:
        cls: A model class of diffusers.
        config: Its config.json.

    Returns:
        A clause such as `t_scale = 'x': it must be a number`; empty if there is none.
    """
    hints = _read_hints(cls)
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if config.get(name) is None:
            continue
        requirement = _find_violation(config[name], _list_types(parameter, hints.get(name)), parameter.default)
        if requirement:
            return f"{name} = {format_value(config[name])}: it must be {requirement}"
    return ""


def _read_hints(cls: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError):  # names that are imported for type checkers alone
        return {}


def _list_types(parameter: inspect.Parameter, annotation: Any) -> set[Any]:
    """The types of a parameter's values, and of the entries where these are lists."""
    types = set(_flatten_annotation(annotation)) if annotation is not None else set()
    if parameter.default is not parameter.empty:
        types |= set(_list_leaf_types(parameter.default))
    return types - {type(None)}


def _flatten_annotation(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        yield from map(type, typing.get_args(annotation))
    elif origin in CONTAINERS:
        for argument in typing.get_args(annotation):
            if argument is not Ellipsis:
                yield from _flatten_annotation(argument)
    else:
        yield origin or annotation


def _list_leaf_types(value: Any) -> Iterator[type]:
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _list_leaf_types(entry)
    else:
        yield type(value)


def _find_violation(value: Any, types: set[Any], default: Any) -> str:
    """What a value, or each entry of a list, must be; empty if it is that, or nothing is known of it."""
    if not types or not types <= JSON_TYPES:
        return ""
    if isinstance(value, list | tuple) and not value and isinstance(default, int | float | str):
        return "one value, or a list of some"
    leaves = set(_list_leaf_types(value)) - {type(None)}
    if types == {bool}:
        return "" if leaves <= {bool, int} else "true or false"
    if types == {str}:
        return "" if leaves <= {str} else "text"
    if types <= NUMBERS | {bool}:
        if not leaves <= NUMBERS | {bool}:
            return "a number"
        if type(default) is int and default > 0 and type(value) is int and value < 0:
            return "a positive whole number"
    return ""
