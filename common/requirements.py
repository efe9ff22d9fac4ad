"""Turns a missing package into a sentence that says what to install."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from .errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
PACKAGE = __name__.partition(".")[0]


def requires_extra(extra: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose packages are installed by an extra of edgepress.

    Args:
        extra: The extra's name, such as `quantize`.

    Returns:
        A decorator. The decorated function raises UserError instead of ModuleNotFoundError, unless the missing module
        is part of edgepress itself.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except ModuleNotFoundError as error:
                raise missing_package(error, extra) from error

        return call

    return decorate


def missing_package(error: ModuleNotFoundError, extra: str) -> Exception:
    """The error to raise for a missing module: a sentence, or the error itself if it is no package to install.

    Libraries that import their parts on demand raise an error without a name from the one that has it.
    """
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "name", None):
        cause = cause.__cause__
    name = str(getattr(cause, "name", "")).partition(".")[0]
    if not name or name == PACKAGE or name in sys.stdlib_module_names:
        return error
    return UserError(f"This needs the package {name!r}, which is not installed. Run: pip install 'edgepress[{extra}]'")
