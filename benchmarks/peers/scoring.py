"""Generates images with quantized layers, always with the same code in float32, and scores them. Scores are cached."""

from __future__ import annotations

import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ...common.code_fingerprint import code_fingerprint
from ...common.progress import Progress
from ...evaluate import metrics
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.report.publishing import RESULTS_FILE
from ...evaluate.results.results_file import load_results
from ...evaluate.results.schema import Results
from ...pipelines.hub import DEMO_PIPELINE
from ...recipes.schema import Recipe
from ...storage.checkpoint import Checkpoint, write_sharded
from ...storage.manifest import library_versions
from ...storage.weight_files import WEIGHT_FILE_STEMS
from ..common.report import CANDIDATE_NAME
from .quantization import compute_digest


def score_edgepress(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """Returns the scores of an artifact of edgepress."""
    return _evaluate(recipe, folder, folder / "model", limit, progress)


def score_peer(recipe: Recipe, folder: Path, limit: int, progress: Progress) -> Results:
    """Returns the scores of a peer's dequantized layers, which replace those of the demo."""
    model = folder / "model"
    if not _get_results_file(folder, limit).exists():
        shutil.rmtree(model, ignore_errors=True)
        layers = load_file(folder / "layers.safetensors")
        write_candidate(layers, tuple(sorted({name.partition(".")[0] for name in layers})), model)
    results = _evaluate(recipe, folder, model, limit, progress)
    shutil.rmtree(model, ignore_errors=True)
    return results


def write_candidate(layers: dict[str, Tensor], components: tuple[str, ...], folder: Path) -> None:
    """Writes a copy of the demo with other weights. Files that do not change are links.

    Args:
        layers: Weights by `component.module`.
        components: The components that they belong to.
        folder: The folder to write.
    """
    for file in sorted(DEMO_PIPELINE.rglob("*")):
        target = folder / file.relative_to(DEMO_PIPELINE)
        is_replaced = file.parent.name in components and ".safetensors" in file.name
        if file.is_file() and not is_replaced:
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
    """Returns the path of the scores, which is keyed by everything that they depend on except the quantized layers.

    When those change, the whole folder is replaced.
    """
    metric_modules = [module.name for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}.")]
    code = code_fingerprint(run_evaluation.__module__, *metric_modules)
    key = compute_digest(str(limit), str(library_versions()), code)
    return folder / "evaluation" / key[:16] / RESULTS_FILE
