"""Makes a valid example of a pydantic model from its fields alone, so that examples follow the schemas."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Model = TypeVar("Model", bound=BaseModel)

PLAIN_VALUES: Mapping[Any, Any] = {str: "x", int: 1, float: 0.5, bool: True, type(None): None, Any: "x"}


def make_example(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Makes an instance all of whose fields are filled, each list and mapping with one entry.

    Floats of a tuple rise from one to the next, as intervals need.

    Args:
        model: The model's class.
        values: Values of fields that must be more than of the right type, by `field` or `Model.field`; `str`: any text.

    Raises:
        ValidationError: `values` must say more.
    """
    return model.model_validate(_make_object(model, values))


def _make_object(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = next((key for key in (f"{model.__name__}.{name}", name) if key in values), None)
        fields[name] = _make_field(field, values) if key is None else values[key]
    return fields


def _make_field(field: FieldInfo, values: Mapping[str, Any]) -> Any:
    scalar = field.annotation in PLAIN_VALUES or get_origin(field.annotation) is Literal
    if scalar and not field.is_required():
        return field.get_default(call_default_factory=True)
    return _make_value(field.annotation, values)


def _make_value(annotation: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _make_object(annotation, values)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return values.get("str", PLAIN_VALUES[str]) if annotation is str else PLAIN_VALUES[annotation]
    if origin is Literal:
        return arguments[0]
    if origin in (dict, Mapping):
        return {_make_value(arguments[0], values): _make_value(arguments[1], values)}
    if origin in (list, tuple):
        items = [_make_value(argument, values) for argument in arguments if argument is not Ellipsis]
        return [(number + 1) * item / len(items) if type(item) is float else item for number, item in enumerate(items)]
    if origin in (Union, types.UnionType):
        return _make_value(arguments[0], values)
    return _make_value(arguments[0], values)  # Annotated
