"""Packages that can be called like the function that they are named after.

`edgepress.quantize` is a package, as its folder's name is given, and the public function `edgepress.quantize(...)`. The
import system binds a package's name in its parent, so one object has to be both.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str, function: str) -> None:
    """Lets a package be called; the call goes to a function, whose module is imported by the first call.

    Args:
        package: The package's `__name__`.
        module: The full name of the function's module.
        function: The function's name.
    """

    class CallablePackage(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(module), function)(*args, **kwargs)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(getattr(import_module(module), function))

    sys.modules[package].__class__ = CallablePackage
