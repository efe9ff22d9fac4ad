"""One SHA-256 of the source that a module's results depend on: what is kept from earlier is not used once that changes.

The package's version alone would not do, as code changes between releases.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parents[1]


@cache
def code_fingerprint(*modules: str, shallow: str | None = None) -> str:
    """Of the modules' files and of all files of this package that they import, at whatever depth.

    Args:
        alone: another module, whose imports do not count.
    """
    sources: dict[str, bytes] = {}
    queue = list(modules)
    while queue:
        module = queue.pop()
        file = _find_module_file(module)
        if module not in sources and file:
            sources[module] = file.read_bytes()
            queue += _find_imports(module, file, sources[module])
    if shallow and (file := _find_module_file(shallow)):
        sources[shallow] = file.read_bytes()
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


def model_modules() -> list[str]:
    """All of models/, whose files are found by scanning the folder and not by imports."""
    return [f"{PACKAGE}.models.{file.parent.name}.{file.stem}" for file in sorted((ROOT / "models").glob("*/*.py"))]


def _find_imports(module: str, file: Path, source: bytes) -> Iterator[str]:
    """The names of modules that a file imports, within functions too, and of what might be modules of its packages."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _find_module_file(module: str) -> Path | None:
    """Where a module of this package stands; None for any other."""
    first, *rest = module.split(".")
    if first != PACKAGE:
        return None
    place = ROOT.joinpath(*rest)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)
