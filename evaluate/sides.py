"""The sides of a comparison: what a folder holds, and what the candidates that are given are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..runtime import manifest
from ..runtime.rknn import manifest as parts
from .pictures import pictures_in
from .results import Kind

FORMS = ("model", "onnx", parts.FOLDER)  # what an artifact may hold that paints
NAMED = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<folder>.+?)(?:@(?P<dtype>float32|bfloat16))?", re.DOTALL)


@dataclass(frozen=True)
class Side:
    """What paints, or has painted: a folder of a kind.

    dtype: what a diffusers pipeline computes in, where it is not the recipe's.
    """

    kind: Kind
    folder: Path
    dtype: str | None = None


def side_of(folder: Path) -> Side:
    """What a folder is: a diffusers pipeline, exported graphs or parts, or pictures.

    Raises:
        UserError: it is none of these.
    """
    if (folder / "model_index.json").exists():
        return Side("diffusers", folder)
    if (folder / manifest.NAME).exists():
        return Side("rknn" if parts.there(folder) else "onnx", folder)
    if folder.is_dir() and pictures_in(folder):
        return Side("images", folder)
    raise UserError(
        f"There is no pressed pipeline in {folder}, nor graphs or pictures; run `edgepress quantize` first, or name a "
        "folder that holds one."
    )


def candidates_of(given: Sequence[str]) -> dict[str, Side]:
    """The candidates that are given as `[NAME=]DIR[@DTYPE]`, by name; an artifact stands for all that it holds.

    A folder `model`, `onnx` or `rknn` without a name is called after the folder that it is in as well.

    Raises:
        UserError: a folder holds nothing that paints, or two candidates are called the same.
    """
    found: dict[str, Side] = {}
    for one in given:
        for name, side in _candidates(one):
            if name in found:
                raise UserError(f"Two candidates are called {name!r}; give names, such as --candidate int4={one}.")
            found[name] = side
    return found


def _candidates(given: str) -> list[tuple[str, Side]]:
    words = NAMED.fullmatch(given)
    if words is None:
        raise UserError("An empty --candidate was given; write --candidate [NAME=]DIR.")
    folder, dtype = Path(words["folder"]), words["dtype"]
    forms = [folder / form for form in FORMS if _paints(folder / form)]
    if forms and not _paints(folder):
        stem = words["name"] or folder.resolve().name
        return [(f"{stem}-{form.name}", _computing(side_of(form), dtype)) for form in forms]
    side = side_of(folder)
    if dtype and side.kind != "diffusers":
        raise UserError(f"{folder} is no diffusers pipeline, and computes in no dtype of ours; leave @{dtype} out.")
    return [(words["name"] or _called(folder), _computing(side, dtype))]


def _paints(folder: Path) -> bool:
    return (folder / "model_index.json").exists() or (folder / manifest.NAME).exists()


def _called(folder: Path) -> str:
    name = folder.resolve().name
    return f"{folder.resolve().parent.name}-{name}" if name in FORMS else name


def _computing(side: Side, dtype: str | None) -> Side:
    if dtype and side.kind == "diffusers":
        return Side(side.kind, side.folder, dtype)
    return side
