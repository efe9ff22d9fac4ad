"""Checks the libraries and classes that model_index.json names for components, without importing any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.validation import format_value
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery
from ..storage.relative_path import is_file_name

LIBRARIES = ("diffusers", "transformers")
LIBRARY_BY_FOLDER = {"tokenizer": "transformers", "scheduler": "diffusers"}  # names may go on with a number


def check_library(folder: Path, library: str, class_name: str) -> None:
    """Checks that there are a library and a class in it of the names that model_index.json gives for a component.

    It may also be a module of diffusers' pipelines, or a file of code in the component's folder.

    Args:
        folder: The component's folder.
        library: The name.
        class_name: The component's class.

    Raises:
        UserError: There is no such library, or it has no such class.
    """
    index, place = folder.parent / MODEL_INDEX, f"the library {format_value(library)} for '{folder.name}'"
    if library in LIBRARIES:
        expected = LIBRARY_BY_FOLDER.get(re.sub(r"_?\d+$", "", folder.name), library)
        if library != expected:
            raise UserError(
                f"{index} names {place}, but {add_article(format_value(class_name))} is of {expected}. "
                f"{advise_recovery(folder)}"
            )
        if not _has_class(library, class_name):
            saved = _describe_release(folder, library)
            raise UserError(
                f"{index} names {add_article(format_value(class_name))} for '{folder.name}', but {library} "
                f"{version(library)} has no such class{saved}. Correct the name, or update that library."
            )
    elif not (_is_importable(library) or _is_pipeline_module(library) or _is_code_file(folder, library)):
        raise UserError(
            f"{index} names {place}, which is not installed and is no module of diffusers. Install that library if it "
            f"exists; the file is wrong if it does not. {advise_recovery(folder)}"
        )


def _describe_release(folder: Path, library: str) -> str:
    """Says which release of a library saved a component, if it was another one than is installed."""
    file, key = folder / "config.json", "transformers_version"
    if library == "diffusers":
        file, key = folder.parent / MODEL_INDEX, "_diffusers_version"
    saved = read_json_object(file).get(key) if file.is_file() else None
    is_known = isinstance(saved, str) and saved != version(library)
    return f"; it was saved with {library} {saved}" if is_known else ""


def _is_code_file(folder: Path, library: str) -> bool:
    name = f"{library}.py"
    return is_file_name(name) and (folder / name).is_file()


def _is_importable(library: str) -> bool:
    """Whether Python finds a package; a module in one is not looked for, since that would import the package."""
    try:
        return find_spec(library.partition(".")[0]) is not None
    except (ImportError, ValueError):  # no name of a module, or one without a spec
        return False


def _is_pipeline_module(library: str) -> bool:
    root = _find_package("diffusers")
    if root is None or not (library.isidentifier() and is_file_name(library)):
        return False
    return (root / "pipelines" / library / "__init__.py").is_file()


@cache
def _has_class(library: str, class_name: str) -> bool:
    """Whether diffusers or transformers has a class, by its source; true where the library is not installed."""
    root = _find_package(library)
    if root is None:
        return True
    if library == "diffusers":
        return f'"{class_name}"' in (root / "__init__.py").read_text("utf-8")
    # transformers reads the names of fast tokenizers and image processors as those of the others.
    names = (class_name, re.sub("(Tokenizer|ImageProcessor)Fast$", r"\1", class_name))
    pattern = re.compile(rf"^(class )?({'|'.join(map(re.escape, names))})(?(1)\b| = )".encode(), re.MULTILINE)
    return any(pattern.search(file.read_bytes()) for file in _list_modules(root, class_name))


def _list_modules(root: Path, class_name: str) -> Iterator[Path]:
    """The modules of transformers, beginning with those in which a class probably is."""
    name = class_name.lower()
    folders = [path for path in (root / "models").iterdir() if name.startswith(path.name.replace("_", ""))]
    for folder in sorted(folders, key=lambda path: -len(path.name)):
        yield from folder.glob("*.py")
    yield from root.rglob("*.py")


def _find_package(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except ImportError:  # something keeps it from being imported
        return None
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None
