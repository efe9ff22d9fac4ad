"""The packages that a pipeline class of diffusers needs besides those of edgepress, checked before any work.

Without such a package diffusers and transformers put a placeholder in the place of a class, which fails when it is
made. Or a pipeline's module leaves out an import, and fails with a NameError as late as at the first prompt.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..common.articles import add_article
from ..common.errors import UserError
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from .component_libraries import LIBRARIES
from .empty_modules import resolve_class
from .hub import read_pipeline_class

PREFIX, SUFFIX = "is_", "_available"  # of the functions that say whether a package is installed


def check_required_packages(folder: Path) -> None:
    """Checks that the packages are installed that a pipeline's class and the classes of its components need.

    Args:
        folder: The pipeline's folder. A class that diffusers does not have needs none.

    Raises:
        UserError: One is not installed.
    """
    import diffusers

    name = read_pipeline_class(folder)
    cls = getattr(diffusers, name, None)
    if not isinstance(cls, type):
        return
    _reject_missing(folder, name, [*_list_backends(cls), *_list_conditional_imports(cls)])
    for entry in read_json_object(folder / MODEL_INDEX).values():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] in LIBRARIES and isinstance(entry[1], str):
            _reject_missing(folder, name, _list_backends(_find_class(*entry)), entry[1])


def is_placeholder(cls: Any) -> bool:
    """Whether diffusers or transformers has put a class in the place of another one that needs a missing package."""
    return bool(_list_backends(cls))


def _find_class(library: str, class_name: str) -> Any:
    """The class of a component; None if its library has none, of which others say more."""
    try:
        return resolve_class(library, class_name)
    except (AttributeError, ImportError):
        return None


def _reject_missing(folder: Path, pipeline_class: str, packages: list[str], component_class: str = "") -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        needed = f"the package {missing[0]!r}" + (f" for its {component_class}" if component_class else "")
        raise UserError(
            f"{folder} is {add_article(pipeline_class)}, which needs {needed}, and that is not installed. "
            "Install it with pip."
        )


def _list_backends(cls: Any) -> list[str]:
    """Packages that a placeholder stands for; a real class has none."""
    backends = getattr(cls, "_backends", ())
    return [name for name in backends if isinstance(name, str)] if isinstance(backends, list | tuple) else []


def _list_conditional_imports(cls: type) -> list[str]:
    """Packages that a class cannot do without, though its module imports them only if they are installed.

    Its source shows which these are: either a class stands in for what is imported, or nothing but the import depends
    on whether the package is there.
    """
    module = sys.modules.get(cls.__module__)
    if module is None or not (file := inspect.getsourcefile(module)):
        return []
    tree = ast.parse(Path(file).read_text("utf-8"))
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [
        function.removeprefix(PREFIX).removesuffix(SUFFIX)
        for function, statement in _iter_conditions(tree)
        if any(isinstance(part, ast.ClassDef) for part in statement.orelse)
        or (not statement.orelse and called.count(function) == 1)
    ]


def _iter_conditions(tree: ast.Module) -> Iterator[tuple[str, ast.If]]:
    """Yields the conditions of a module under which it imports something, each with the function that it asks."""
    for statement in tree.body:
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Call):
            function = getattr(statement.test.func, "id", "")
            imports = any(isinstance(part, ast.Import | ast.ImportFrom) for part in statement.body)
            if imports and function.startswith(PREFIX) and function.endswith(SUFFIX):
                yield function, statement
