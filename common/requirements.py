"""Turns a package that is missing, or that cannot be imported, into a sentence that says what to install."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from .errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
PACKAGE = __name__.partition(".")[0]
IMPORT_MESSAGE = "Failed to import "  # what diffusers begins with where it imports a class on demand
VARIABLE = re.compile(r"""["']([A-Z][A-Z0-9_]*)["']""")  # in a line of Python that reads it
MAX_REASON = 200  # characters
# How diffusers and transformers say that a package is missing; what to install can have another name than the package.
MISSING = (
    re.compile(r"not found in your environment.*?`pip install (?:-\S+ )*([\w.-]+)", re.DOTALL),
    re.compile(r"requires the ([\w.-]+) library but it was not found"),
    re.compile(r"`([\w.-]+)` is not installed"),
)


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
    # What a missing distribution is called is in the text of importlib's error, if the library gives it another.
    text = str(getattr(cause, "name", ""))
    distribution = re.search(r"'([\w.-]+)' distribution", text)
    name = distribution[1] if distribution else text.partition(".")[0]
    if not name or name == PACKAGE or name in sys.stdlib_module_names:
        return error
    return UserError(f"This needs the package {name!r}, which is not installed. Run: pip install 'edgepress[{extra}]'")


def reject_failed_import(error: BaseException, subject: str = "This") -> None:
    """Raises a sentence for an error that a package could not be imported with; returns if it is another error.

    Libraries that import their classes on demand raise it late, where an invalid config is expected to fail.

    Args:
        error: The error, which may have been raised from that of the package.
        subject: What needs the package, where the error says that it is not installed.

    Raises:
        UserError: A package is missing or broken, or cannot use the value of an environment variable.
    """
    if isinstance(error, UserError):  # it is a sentence already
        return
    causes = list(_iter_causes(error))
    _reject_environment(causes[-1])
    failed = next((cause for cause in causes if isinstance(cause, ImportError) or _is_import(cause)), None)
    if failed is None:
        return
    root = causes[-1]
    if isinstance(root, ModuleNotFoundError):
        missing = missing_package(root, "all")
        if isinstance(missing, UserError):
            raise missing from error
    name = next((str(cause.name) for cause in reversed(causes) if isinstance(cause, ImportError) and cause.name), "")
    package = name.partition(".")[0]
    if package == PACKAGE or package in sys.stdlib_module_names:
        return
    if missing_name := _find_missing_name(str(root)):
        raise UserError(
            f"{subject} needs the package {missing_name!r}, which is not installed. Install it with pip."
        ) from error
    reason = next(iter(str(root).strip().splitlines()), type(root).__name__)[:MAX_REASON].rstrip(".")
    raise UserError(
        f"{f'The package {package}' if package else 'A package'} cannot be imported ({reason}). Install it again."
    ) from error


def _find_missing_name(text: str) -> str:
    """The package that an error of diffusers or transformers says to be missing; empty if it says none."""
    matches = (pattern.search(text) for pattern in MISSING)
    return next((match[1].lower() for match in matches if match), "")


def _reject_environment(error: BaseException) -> None:
    """Raises a sentence where a package, as it is imported, reads a number from a variable that holds none."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames:
        return
    names = {name for frame in frames if frame.name == "<module>" for name in VARIABLE.findall(frame.line or "")}
    for name in sorted(names & set(os.environ)):
        if repr(os.environ[name]) in str(error):
            raise UserError(
                f"A package cannot be imported: the environment variable {name} has the value {os.environ[name]!r}, "
                "which it cannot read. Correct it, or unset it."
            ) from error


def _is_import(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(IMPORT_MESSAGE)


def _iter_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
