"""Painting with what was pressed, all by the same code in float32, and scoring the pictures; kept like the pressing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ...artifact import versions
from ...checkpoint import Checkpoint, write_sharded
from ...evaluate.aside import RESULTS
from ...evaluate.plan import Options, plan_for
from ...evaluate.results import Results, load_results
from ...evaluate.run import evaluate
from ...progress import Progress
from ...quantize.write import STEMS
from ...recipe import Recipe
from ...sources import DEMO
from ..report import VARIANT
from .press import CODE, digest


def score_own(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """The scores of an artifact of edgepress."""
    return _scored(recipe, folder, folder / "model", limit, progress)


def score_peer(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """The scores of a peer's layers, put into the demo with their full precision while it is painted."""
    model = folder / "model"
    if not _output(folder, limit).exists():
        shutil.rmtree(model, ignore_errors=True)
        write_candidate(load_file(folder / "layers.safetensors"), recipe.quantize.components, model)
    results = _scored(recipe, folder, model, limit, progress)
    shutil.rmtree(model, ignore_errors=True)
    return results


def write_candidate(layers: dict[str, Tensor], components: tuple[str, ...], folder: Path) -> None:
    """A copy of the demo, what is not changed linked, in which `component.module` weights are replaced."""
    for file in sorted(DEMO.rglob("*")):
        place = folder / file.relative_to(DEMO)
        weights = file.parent.name in components and ".safetensors" in file.name
        if file.is_file() and not weights:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
    for name in components:
        checkpoint = Checkpoint(DEMO / name)
        kind = "diffusers" if "_class_name" in checkpoint.config() else "transformers"
        write_sharded(_replaced(checkpoint, name, layers), folder / name, STEMS[kind])


def _replaced(checkpoint: Checkpoint, component: str, layers: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name in checkpoint.names():
        layer = f"{component}.{name.removesuffix('.weight')}"
        yield name, layers[layer] if layer in layers else checkpoint.tensor(name)


def _scored(recipe: Recipe, folder: Path, model: Path, limit: int, progress: Progress) -> Results:
    output = _output(folder, limit)
    if output.exists():
        return load_results(output)
    options = Options(
        model=str(DEMO),
        candidates=(f"{VARIANT}={model}",),
        limit=limit,
        output=output.parent,
        gates=False,
        noise_floor=False,
    )
    return evaluate(plan_for(recipe, options), progress)


def _output(folder: Path, limit: int) -> Path:
    """Where the scores are kept, by all that they depend on but the pressing, with which the folder goes."""
    files = [CODE / "sampling.py", *sorted((CODE / "evaluate").rglob("*.py"))]
    key = digest(str(limit), str(versions()), *(file.read_text("utf-8") for file in files))
    return folder / "evaluation" / key[:16] / RESULTS
