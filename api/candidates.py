"""Compares candidates, to choose one: everyone's files on the same prompts and noise, in one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..recipes.schema import Recipe
from ..storage.layout import EVALUATION_RESULTS
from .functions import Candidate, plan_evaluation, run_evaluation

if TYPE_CHECKING:
    from ..evaluate.comparison.schema import CandidateComparison
    from ..evaluate.results.schema import Results


@check_arguments
@requires_extra("evaluate")
def compare(
    candidates: Sequence[Candidate],
    *,
    recipe: Recipe | str | Path | None = None,
    model: str | Path | None = None,
    output: str | Path | None = None,
    prompts: str | Path | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    seeds: Annotated[int, Field(ge=1)] = 1,
    clip: str | None = None,
    metrics: str | Sequence[str] = (),
    restart: bool = False,
    progress: Progress = no_progress,
) -> CandidateComparison:
    """Compares candidates, and writes compare.html and compare.json.

    Args:
        candidates: Candidates as `edgepress evaluate --candidate` takes them, which are evaluated; or results.json
            files of evaluations with the same reference, prompts and settings, which are read.
        recipe: As for `quantize`: what they are compared with, and how; None if `model` is given. Its gates are left
            out.
        model: The reference, as for `evaluate`.
        output: Folder of both files, and of the results; default: as for `evaluate`, or that of the first results.
        prompts: As for `evaluate`, and so are the following ones.
        limit: Number of prompts to use.
        seeds: Number of images per prompt.
        clip: CLIP weights.
        metrics: Names of the metrics to compute.
        restart: Whether to generate all images and compute all scores again.
        progress: Called with a stage, what is done and the total.

    Returns:
        The comparison. `print` shows what follows from it.

    Raises:
        UserError: Bad input, results that cannot be compared, something that cannot be measured at all, or a package
            that is missing.
    """
    from ..evaluate.comparison.builder import build_comparison
    from ..evaluate.comparison.writer import check_comparison_files, write_comparison

    specs = [str(candidate) for candidate in candidates]
    options: dict[str, Any] = {
        "prompts": str(prompts) if prompts is not None else None,
        "limit": limit,
        "seeds": seeds,
        "clip": clip,
        "metrics": (metrics,) if isinstance(metrics, str) else tuple(metrics),
        "restart": restart,
    }
    if not specs:
        raise UserError("Nothing to compare. Give candidates, or results.json files of evaluations.")
    paths = [path for path in map(_find_results, specs) if path]
    if paths:
        _require_results_only(specs, paths, {"recipe": recipe, "model": model, **options, "seeds": seeds > 1})
        folder = Path(output) if output is not None else paths[0].parent
        check_comparison_files(folder)
        results = [_load(path) for path in paths]
    else:
        if recipe is None and model is None:
            raise UserError("Nothing to compare with. Give --model, the pipeline that was quantized, or --recipe.")
        plan = plan_evaluation(recipe, model=model, candidates=specs, output=output, gates=False, **options)
        folder = plan.output
        check_comparison_files(folder)
        results = [run_evaluation(plan, progress)]
    comparison = build_comparison(results, paths)
    write_comparison(comparison, folder)
    return comparison


def _find_results(spec: str) -> Path | None:
    """The results.json that an argument leads to; None if it is a candidate."""
    path = Path(spec)
    if path.is_dir() and (path / EVALUATION_RESULTS).is_file():
        return path / EVALUATION_RESULTS
    return path if path.suffix == ".json" else None


def _require_results_only(specs: Sequence[str], paths: Sequence[Path], options: Mapping[str, Any]) -> None:
    if len(paths) < len(specs):
        raise UserError(f"{paths[0]} holds results, but not all candidates do. Give results only, or candidates only.")
    given = ["--metric" if name == "metrics" else f"--{name}" for name, value in options.items() if value]
    if given:
        raise UserError(f"{paths[0]} holds results, which are only read. Leave out {' and '.join(given)}.")


def _load(path: Path) -> Results:
    from ..evaluate.results.results_file import load_results

    return load_results(path)
