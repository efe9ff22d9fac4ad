"""Checks the libraries that model_index.json names for components, without importing any."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from ..common.errors import UserError
from ..common.validation import format_value
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery

LIBRARIES = ("diffusers", "transformers")
LIBRARY_BY_FOLDER = {"tokenizer": "transformers", "scheduler": "diffusers"}  # names may go on with a number


def check_library(folder: Path, library: str, class_name: str) -> None:
    """Checks that there is a library of the name that model_index.json gives for a component.

    It may also be a module of diffusers' pipelines, or a file of code in the component's folder.

    Args:
        folder: The component's folder.
        library: The name.
        class_name: The component's class.

    Raises:
        UserError: There is none, or it has no classes of that kind.
    """
    index, place = folder.parent / MODEL_INDEX, f"the library {format_value(library)} for '{folder.name}'"
    if library in LIBRARIES:
        expected = LIBRARY_BY_FOLDER.get(re.sub(r"_?\d+$", "", folder.name), library)
        if library != expected:
            raise UserError(
                f"{index} names {place}, but a {format_value(class_name)} is of {expected}. {advise_recovery(folder)}"
            )
    elif not (_is_importable(library) or _is_pipeline_module(library) or (folder / f"{library}.py").is_file()):
        raise UserError(
            f"{index} names {place}, which is not installed and is no module of diffusers. Install that library if it "
            f"exists; the file is wrong if it does not. {advise_recovery(folder)}"
        )


def _is_importable(library: str) -> bool:
    """Whether Python finds a package; a module in one is not looked for, since that would import the package."""
    try:
        return find_spec(library.partition(".")[0]) is not None
    except (ImportError, ValueError):  # no name of a module, or one without a spec
        return False


def _is_pipeline_module(library: str) -> bool:
    if not library.isidentifier():
        return False
    spec = find_spec("diffusers")
    places = spec.submodule_search_locations if spec is not None else None
    return any((Path(place) / "pipelines" / library / "__init__.py").is_file() for place in places or ())
