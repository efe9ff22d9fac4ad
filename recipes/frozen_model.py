"""What all sections of a recipe have in common: they are immutable, and read the keys of earlier releases."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from ..common.suggest import suggest_name
from ..common.validation import explain_value


class FrozenModel(BaseModel):
    """An immutable section of a recipe. It rejects unknown keys, and reads the keys and values of earlier releases.

    Numbers are finite, and `true` is no number.

    Attributes:
        RENAMED_KEYS: Keys of earlier releases, with what they are called now.
        RENAMED_VALUES: For each key, values of earlier releases with what they are called now.
        SAME_KEYS: Whether the section's keys are those of the whole recipe, and described there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {}
    RENAMED_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    SAME_KEYS: ClassVar[bool] = False

    @classmethod
    def upgrade_entry(cls, key: Any, value: Any) -> tuple[Any, Any]:
        """The key and value of this release for those of an earlier one; others are returned as they are."""
        key = cls.RENAMED_KEYS.get(key, key)
        replacements = cls.RENAMED_VALUES.get(key, {})
        if isinstance(value, list | tuple):
            return key, [replacements.get(entry, entry) if isinstance(entry, str) else entry for entry in value]
        return key, replacements.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        for old, new in cls.RENAMED_KEYS.items():
            if old in content and new in content:
                raise ValueError(f"{old} is the old name of {new}; give only one of them")
        upgraded = dict(cls.upgrade_entry(key, value) for key, value in content.items())
        for key, value in upgraded.items():
            is_nested = isinstance(value, Mapping) and nested_section(cls, key) is not None  # which checks itself
            if key in cls.model_fields and not is_nested and _has_boolean(value):
                _check_boolean(key, cls.model_fields[key].annotation)
        return upgraded


def _has_boolean(value: Any, depth: int = 2) -> bool:
    """Whether a value is a boolean, or a list or mapping that has one, or a list of lists."""
    if depth and isinstance(value, list | tuple | Mapping):
        entries = value.values() if isinstance(value, Mapping) else value
        return any(_has_boolean(entry, depth - 1) for entry in entries)
    return isinstance(value, bool)


def _check_boolean(key: str, annotation: Any) -> None:
    """Raises ValueError where a key takes no boolean; pydantic would read `true` as the number 1."""
    options = [annotation]
    while options:
        option = options.pop()
        if option is bool:
            return
        options += get_args(option)
    raise ValueError(f"{key} cannot be true or false")


def nested_section(section: type[FrozenModel], key: str) -> type[FrozenModel] | None:
    """The model of a section within a section, or of the values of a mapping such as `extra_schemes`.

    Returns:
        None if `key` is unknown or holds a plain value.
    """
    field = section.model_fields.get(key)
    annotation = field.annotation if field else None
    if is_mapping(section, key):
        annotation = get_args(annotation)[1]
    candidates = [option for option in get_args(annotation) or (annotation,) if option is not NoneType]
    return candidates[0] if len(candidates) == 1 and is_section(candidates[0]) else None


def is_mapping(section: type[FrozenModel], key: str) -> bool:
    """Whether a key holds a mapping from names that the user chooses, such as `extra_schemes`."""
    return key in section.model_fields and get_origin(section.model_fields[key].annotation) is dict


def is_section(annotation: Any) -> bool:
    """Whether a type is a section of a recipe."""
    return isinstance(annotation, type) and issubclass(annotation, FrozenModel)


def say_requirement(requirement: str) -> WrapValidator:
    """What `Annotated` takes for a type of several forms: invalid values are answered by one requirement for all.

    Args:
        requirement: What to write, as a clause.
    """

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            raise ValueError(requirement) from error

    return WrapValidator(check)


def explain_settings(section: type[FrozenModel], error: ValidationError) -> str:
    """The first mistake in a recipe or a section of one, as a sentence."""
    errors = error.errors()
    # Report a typo first: the key that was meant may be missing because of it.
    first = next((details for details in errors if details["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {suggest_name(str(first['loc'][-1]), _sibling_keys(section, first['loc']))}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing; add it."
    return f"{explain_value(first)}."


def _sibling_keys(section: type[FrozenModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one was given."""
    parts = iter(location[:-1])
    for part in parts:
        nested = nested_section(section, str(part))
        assert nested is not None  # only sections reject unknown keys
        if is_mapping(section, str(part)):
            next(parts, None)
        section = nested
    return list(section.model_fields)
