"""Fingerprints of source code, for the keys of caches: a result is not reused once the code that computes it changes.

The package's version would not do, since code changes between releases.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parents[1]
# Modules that find others by scanning a package, instead of importing them, with the package's name.
SCANNED_PACKAGES = {f"{PACKAGE}.models.registry": f"{PACKAGE}.models"}
STATEMENT_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # fields of statements that hold statements


@cache
def code_fingerprint(*modules: str, shallow: str | None = None) -> str:
    """A SHA-256 of the source of modules and of everything in this package that they import, directly or indirectly.

    Modules outside the package, and imports for type checkers only, do not count.

    Args:
        modules: The full names of the modules.
        shallow: A further module that counts without its imports.
    """
    sources: dict[str, bytes] = {}
    queue = list(modules)
    while queue:
        module = queue.pop()
        file = _find_module_file(module)
        if module not in sources and file:
            sources[module] = file.read_bytes()
            queue += _find_imports(module, file.name == "__init__.py", sources[module])
            queue += _find_modules(SCANNED_PACKAGES[module]) if module in SCANNED_PACKAGES else []
    if shallow and (file := _find_module_file(shallow)):
        sources[shallow] = file.read_bytes()
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


def model_modules() -> list[str]:
    """The names of all modules of `models`, some of which are loaded by name and imported by no other module."""
    return _find_modules(f"{PACKAGE}.models")


def _find_modules(package: str) -> list[str]:
    """The names of all modules in a package and its sub-packages, sorted."""
    files = ROOT.joinpath(*package.split(".")[1:]).rglob("*.py")
    names = (".".join([PACKAGE, *file.relative_to(ROOT).with_suffix("").parts]) for file in files)
    return sorted(name.removesuffix(".__init__") for name in names)


@cache
def _find_imports(module: str, is_package: bool, source: bytes) -> tuple[str, ...]:
    """The names of all modules that a module imports, in functions too; names that are not modules are among them."""
    package = module if is_package else module.rpartition(".")[0]
    names: list[str] = []
    for node in _walk_executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _walk_executed(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements, but those that only type checkers read. Expressions, most of a tree, hold no statements."""
    queue: list[ast.AST] = [*tree.body]
    while queue:
        node = queue.pop()
        yield node
        is_for_type_checkers = (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
        for block in ("orelse",) if is_for_type_checkers else STATEMENT_BLOCKS:
            queue += getattr(node, block, ())


def _find_module_file(module: str) -> Path | None:
    """The file of a module of this package; None for any other module."""
    first, *rest = module.split(".")
    if first != PACKAGE:
        return None
    path = ROOT.joinpath(*rest)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
