"""Painting with what was pressed, all by the same code in float32, and scoring the pictures; kept like the pressing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ...common.progress import Progress
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.report.previous_files import RESULTS_FILE
from ...evaluate.results.schema import Results, load_results
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.writer import WEIGHT_FILE_STEMS
from ...recipes.schema import Recipe
from ...storage.checkpoint import Checkpoint, write_sharded
from ...storage.manifest import library_versions
from ..common.report import CANDIDATE_NAME
from .press import PACKAGE_ROOT, compute_digest


def score_edgepress(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """The scores of an artifact of edgepress."""
    return _evaluate(recipe, folder, folder / "model", limit, progress)


def score_peer(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """The scores of a peer's layers, put into the demo with their full precision while it is painted."""
    model = folder / "model"
    if not _get_results_file(folder, limit).exists():
        shutil.rmtree(model, ignore_errors=True)
        write_candidate(load_file(folder / "layers.safetensors"), recipe.quantize.components, model)
    results = _evaluate(recipe, folder, model, limit, progress)
    shutil.rmtree(model, ignore_errors=True)
    return results


def write_candidate(layers: dict[str, Tensor], components: tuple[str, ...], folder: Path) -> None:
    """A copy of the demo, what is not changed linked, in which `component.module` weights are replaced."""
    for file in sorted(DEMO_PIPELINE.rglob("*")):
        target = folder / file.relative_to(DEMO_PIPELINE)
        weights = file.parent.name in components and ".safetensors" in file.name
        if file.is_file() and not weights:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    for name in components:
        checkpoint = Checkpoint(DEMO_PIPELINE / name)
        kind = "diffusers" if "_class_name" in checkpoint.load_config() else "transformers"
        write_sharded(_replace_layers(checkpoint, name, layers), folder / name, WEIGHT_FILE_STEMS[kind])


def _replace_layers(checkpoint: Checkpoint, component: str, layers: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name in checkpoint.names():
        layer = f"{component}.{name.removesuffix('.weight')}"
        yield name, layers[layer] if layer in layers else checkpoint.load_tensor(name)


def _evaluate(recipe: Recipe, folder: Path, model: Path, limit: int, progress: Progress) -> Results:
    output = _get_results_file(folder, limit)
    if output.exists():
        return load_results(output)
    options = EvaluationOptions(
        model=str(DEMO_PIPELINE),
        candidates=(f"{CANDIDATE_NAME}={model}",),
        limit=limit,
        output=output.parent,
        gates=False,
        noise_floor=False,
    )
    return run_evaluation(plan_evaluation(recipe, options), progress)


def _get_results_file(folder: Path, limit: int) -> Path:
    """Where the scores are kept, by all that they depend on but the pressing, with which the folder goes."""
    files = [PACKAGE_ROOT / "sampling.py", *sorted((PACKAGE_ROOT / "evaluate").rglob("*.py"))]
    key = compute_digest(str(limit), str(library_versions()), *(file.read_text("utf-8") for file in files))
    return folder / "evaluation" / key[:16] / RESULTS_FILE
