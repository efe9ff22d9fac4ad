"""Checks the arguments of public functions by their annotations, before anything is done with one.

`Annotated[int, Field(ge=1)]` limits a number, as in recipes. `Annotated[str, MAY_BE_EMPTY]` allows a text without a
character, and `Annotated[str | Path, MAY_BE_ADDRESS]` that of a server.
"""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from .errors import UserError
from .file_names import ADDRESS
from .progress import Progress
from .suggest import suggest_name
from .validation import explain_value, format_value

P = ParamSpec("P")
R = TypeVar("R")
MAY_BE_EMPTY, MAY_BE_ADDRESS = "may be empty", "may be an address"
MAX_SECONDS = 30_000_000  # about a year, which operating systems can wait for
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
NAMES = {  # of one value and of several
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("True or False", "True or False"),
    Progress: ("a function of a stage, what is done and the total", "functions"),
}
LISTS = (list, tuple, Sequence)


class _WrongTypeError(Exception):
    """A value that is not of the type."""


class _WrongValueError(Exception):
    """A value that is of the type and cannot be used; the message says what it must be.

    Args:
        explanation: What it must be.
        place: Where it is in the argument, such as `[0]`; empty: it is the argument.
        value: The value, if it is in a list or dict.
    """

    def __init__(self, explanation: str, place: str = "", value: Any = None) -> None:
        super().__init__(explanation)
        self.place = place
        self.value = value


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a public function so that it checks all of its arguments before anything else.

    Numbers of numpy become numbers of Python, lists become tuples, and other paths than those of pathlib become these.

    Returns:
        The function. It raises UserError where an argument is missing, unknown, or not what its annotation says. The
        message names the argument, its value and what it must be.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _bind(function.__qualname__, signature, args, kwargs)
        annotations = _read_annotations(inspect.unwrap(function), tuple(signature.parameters))
        for name in given.arguments.keys() & annotations.keys():
            value = given.arguments[name]
            if value is not signature.parameters[name].default:
                given.arguments[name] = _check(name, annotations[name], value)
        return function(*given.args, **given.kwargs)

    return call


def _bind(name: str, signature: inspect.Signature, args: Any, kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments by name."""
    parameters = [parameter for parameter in signature.parameters if parameter != "self"]
    unknown = next((key for key in kwargs if key not in parameters), None)
    if unknown is not None:
        raise UserError(f"{name} has no argument '{unknown}': {suggest_name(unknown, parameters)}")
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:  # "missing a required argument: 'recipe'", "too many positional arguments"
        known = ", ".join(parameters)
        raise UserError(f"{name} cannot be called so ({error}). Give its arguments by name: {known}.") from error


def _read_annotations(function: Callable[..., Any], parameters: Sequence[str]) -> dict[str, Any]:
    """The annotations of parameters; those of results may be imported for type checkers only."""
    written = {name: text for name, text in function.__annotations__.items() if name in parameters}
    holder = SimpleNamespace(__annotations__=written)
    return get_type_hints(holder, function.__globals__, include_extras=True)


def _check(name: str, annotation: Any, value: Any) -> Any:
    """The value as its annotation has it.

    Raises:
        UserError: It is something else.
    """
    place, wrong = "", value
    try:
        return _convert(annotation, value, ())
    except _WrongValueError as error:
        explanation = str(error)
        if error.place:
            place, wrong = error.place, error.value
    except _WrongTypeError:
        explanation = f"it must be {_describe(annotation)}"
    raise UserError(f"{name}{place}{_show(wrong)}: {explanation}.")


def _show(value: Any) -> str:
    """A value after the name of its argument; of what has no short form, its type."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(text, str):
        return f" = {format_value(_without_surrogates(text))}"
    if value is None or isinstance(value, bool):
        return f" = {value}"
    if isinstance(value, Real):
        return f" = {format_value(int(value) if isinstance(value, Integral) else float(value))}"
    if isinstance(value, list | tuple) and all(isinstance(entry, str | int | float) for entry in value):
        return f" = {_without_surrogates(format_value(value))}"
    return f" is of the type {type(value).__name__}"


def _without_surrogates(text: str) -> str:
    """A text without what stands for bytes that are not UTF-8, so that it can be written anywhere."""
    return text.encode("utf-8", "replace").decode("utf-8")


# ---------------------------------------------------------------- annotations


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without `Annotated`, and what that adds."""
    if get_origin(annotation) is Annotated:
        return annotation.__origin__, annotation.__metadata__
    return annotation, ()


def _options(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; of any other annotation, itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _describe(annotation: Any) -> str:
    """What a value must be; that it may be left out goes without saying."""
    options = [option for option in _options(_split(annotation)[0]) if option is not NoneType]
    if len(options) > 1 or options[0] is not annotation:
        return _join(list(map(_describe, options)))
    origin, inside = get_origin(options[0]), get_args(options[0])
    if origin is Literal:
        return _join(list(map(repr, inside)))
    if origin in LISTS or origin is Mapping:
        return f"a {_name_list(origin, inside)} of {_describe_many(inside[-1 if origin is Mapping else 0])}"
    if origin is Callable:
        return "a function"
    return NAMES.get(options[0], (f"a {getattr(options[0], '__name__', '')}", ""))[0]


def _describe_many(annotation: Any) -> str:
    """What the entries of a list must be."""
    options = [_split(option)[0] for option in _options(_split(annotation)[0])]
    lists = [
        f"{_name_list(get_origin(each), get_args(each))}s of {_describe_many(get_args(each)[0])}"
        for each in options
        if get_origin(each) in LISTS
    ]
    return _join(lists or [NAMES[each][1] for each in options])


def _name_list(origin: Any, inside: Sequence[Any]) -> str:
    return "dict" if origin is Mapping else "pair" if origin is tuple and inside[-1] is not ... else "list"


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


# ---------------------------------------------------------------- values


def _convert(annotation: Any, value: Any, limits: tuple[Any, ...]) -> Any:
    """The value as its annotation has it.

    Args:
        annotation: The annotation.
        value: The value.
        limits: What `Annotated` adds to the annotation that it is part of.

    Raises:
        _WrongTypeError: It is not of the type.
        _WrongValueError: It is, and cannot be used.
    """
    annotation, added = _split(annotation)
    limits = (*limits, *added)
    options = _options(annotation)
    if len(options) == 1:
        return _convert_plain(annotation, value, limits)
    if Path in options and isinstance(value, str):
        return _check_path(value, MAY_BE_ADDRESS in limits)
    for option in options:
        try:
            return _convert(option, value, limits)
        except _WrongTypeError:
            continue
    raise _WrongTypeError


def _convert_plain(annotation: Any, value: Any, limits: tuple[Any, ...]) -> Any:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _require(value, any(type(option) is type(value) and option == value for option in inside))
    if origin in LISTS:
        return _convert_list(origin, inside, value, limits)
    if origin is Mapping:
        _require(value, isinstance(value, Mapping))
        return {
            _convert_entry(".keys()", inside[0], key, ()): _convert_entry(
                f"[{format_value(key)}]", inside[1], entry, limits
            )
            for key, entry in value.items()
        }
    if annotation is Progress:
        return _require(value, callable(value) and _takes_progress(value))
    if origin is Callable:
        return _require(value, callable(value))
    if annotation is str:
        return _check_text(_require(value, isinstance(value, str)), MAY_BE_EMPTY in limits)
    if annotation is Path:
        path = os.fspath(_require(value, isinstance(value, os.PathLike)))
        return value if isinstance(value, Path) and _check_path(path) else Path(_check_path(_require_text(path)))
    if annotation in (int, float):
        return _convert_number(annotation, value, limits)
    return _require(value, isinstance(value, annotation))


def _require(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise _WrongTypeError
    return value


def _require_text(path: str | bytes) -> str:
    return cast(str, _require(path, isinstance(path, str)))


def _convert_list(origin: Any, inside: tuple[Any, ...], value: Any, limits: tuple[Any, ...]) -> tuple[Any, ...]:
    _require(value, isinstance(value, list | tuple))
    if origin is tuple and inside[-1] is not ...:
        _require(value, len(value) == len(inside))
        options = inside
    else:
        options = inside[:1] * len(value)
    pairs = zip(options, value, strict=True)
    return tuple(_convert_entry(f"[{index}]", option, entry, limits) for index, (option, entry) in enumerate(pairs))


def _convert_entry(place: str, annotation: Any, value: Any, limits: tuple[Any, ...]) -> Any:
    """An entry of a list or dict as its annotation has it; what is wrong with it says where it is."""
    try:
        return _convert(annotation, value, limits)
    except _WrongValueError as error:
        wrong = error.value if error.place else value
        raise _WrongValueError(str(error), f"{place}{error.place}", wrong) from error


def _convert_number(annotation: Any, value: Any, limits: tuple[Any, ...]) -> int | float:
    kind = Integral if annotation is int else Real
    _require(value, isinstance(value, kind) and not isinstance(value, bool))
    try:
        _require(value, annotation is int or isfinite(value))
        number: int | float = annotation(value)
        for limit in limits:
            TypeAdapter(Annotated[annotation, limit]).validate_python(number, strict=True)
    except OverflowError as error:  # an integer that is too large for a float
        raise _WrongTypeError from error
    except ValidationError as error:
        raise _WrongValueError(explain_value(error.errors()[0])) from error
    return number


def _takes_progress(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with a stage, what is done and the total."""
    try:
        inspect.signature(function).bind("", 0, 0)
    except TypeError:
        return False
    except ValueError:  # one without a signature, such as many of C
        return True
    return True


def _check_text(text: str, may_be_empty: bool) -> str:
    if not may_be_empty and not text.strip():
        raise _WrongValueError("it must not be empty")
    if _without_surrogates(text) != text or "\0" in text:
        raise _WrongValueError("it must be text in UTF-8, without null characters")
    return text


def _check_path(path: str, may_be_address: bool = False) -> str:
    """A text that a path can be made of, or a path as text."""
    _check_text(path, may_be_empty=False)
    if not may_be_address and ADDRESS.match(path):
        raise _WrongValueError("it must be a path on this machine, not an address")
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _WrongValueError("it must be shorter to be the name of a file or folder") from error
    return path
