"""Runs an evaluation: reads all folders, paints what is missing, measures, judges, and writes results.json."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from .. import __version__
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..prompts.prompt import prompt_set_digest
from ..storage.manifest import library_versions, read_manifest
from .collection import collect_images, iter_samples
from .generation.candidates import EXPORT_FOLDERS, ImageSource
from .generation.generators import detect_engine
from .metrics.base import list_image_scores, list_pair_scores
from .metrics.registry import MetricSet, load_metrics
from .plan import EvaluationPlan
from .report.previous_files import RESULTS_FILE, discard_previous, stash_previous
from .results import baseline, history
from .results.aggregate import VariantPair, aggregate, find_reference_defects, select_variant
from .results.folder_identity import digest_files, hash_folder
from .results.gates import GateSpec, evaluate_gates, overall_verdict, resolve_gates
from .results.schema import Results, RunIdentity, SampleResult, SamplingInfo, SystemInfo, load_results, save_results
from .scoring.pairs import ComparisonSet, build_row, make_tasks
from .scoring.runner import ScoreTable, score_images
from .scoring.score_cache import open_score_cache


def run_evaluation(plan: EvaluationPlan, progress: Progress = no_progress) -> Results:
    """Compares the candidates with the reference, and writes `results.json` into the plan's output folder.

    Pictures and readings that were made before, by this run or by one that was killed, are not made again. What the
    folder held of an earlier evaluation is put aside first, and removed when there are new results.

    Raises:
        UserError: nothing to compare, a side that cannot be loaded; limits, baseline or truth that do not fit.
    """
    try:
        then = load_results(plan.baseline) if plan.baseline else None  # which may be among what is put aside
    finally:
        stash_previous(plan.output)
    if not plan.prompts or plan.seeds < 1 or not plan.candidates:
        raise UserError("There is nothing to compare: give at least one prompt, one seed and one candidate.")
    found = load_metrics(plan.metric_settings, plan.metrics)
    limits = resolve_gates(
        plan.gates, [*found.metrics, *found.unavailable], plan.ground_truth is not None, plan.metrics
    )
    if plan.history:
        history.init_history(plan.history)
    seconds: dict[str, float] = {}
    with _record_time(seconds, "reading"):
        identity = _build_identity(plan, found, progress)
    if plan.baseline and then:
        baseline.require_comparable(plan.baseline, then, identity)
    with _record_time(seconds, "painting"):
        compared = collect_images(plan, identity, progress)
    with _record_time(seconds, "measuring"):
        measured = _score_all(plan, found, identity, compared, progress)
    rows = tuple(build_row(*one, compared, measured.results, plan.image_cache) for one in iter_samples(plan))
    results = _build_results(plan, found, limits, identity, rows)
    results = results.model_copy(update={"seconds": seconds, "costs": measured.costs})
    if plan.baseline and then:
        results = results.model_copy(update={"baseline": baseline.compare_runs(plan.baseline, then, results)})
    if plan.history:
        results = results.model_copy(update={"history": history.append_run(plan.history, results, found.metrics)})
    save_results(results, plan.output / RESULTS_FILE)
    discard_previous(plan.output)
    return results


@contextmanager
def _record_time(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the wall time of a stage."""
    begin = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - begin


# ---------------------------------------------------------------- identity


def _build_identity(plan: EvaluationPlan, found: MetricSet, progress: Progress) -> RunIdentity:
    reference = _build_subject(plan, plan.reference, progress, "reading the reference")
    variants = {name: _build_subject(plan, side, progress, f"reading {name}") for name, side in plan.candidates.items()}
    for side in plan.candidates.values():
        _require_same_origin(plan, side, reference)
    sampling = asdict(plan.sampling) if plan.sampling else dict.fromkeys(("height", "width", "steps", "guidance"))
    return RunIdentity(
        reference=reference,
        variants=variants,
        ground_truth=hash_folder(plan.ground_truth, progress, "reading true pictures") if plan.ground_truth else None,
        sampling=SamplingInfo(**sampling, num_seeds=plan.seeds),
        prompt_set=plan.prompt_set,
        prompts_sha256=prompt_set_digest(plan.prompts),
        metrics={metric.name: metric.version() for metric in found.metrics},
        libraries=library_versions(),
        device=plan.device,
        image_folder=str(plan.image_cache.absolute()),
    )


def _build_subject(plan: EvaluationPlan, side: ImageSource, progress: Progress, stage: str) -> SystemInfo:
    dtype = side.dtype or plan.dtype if side.kind == "diffusers" else None
    folder = hash_folder(side.folder, progress, stage)
    return SystemInfo(kind=side.kind, folder=folder, dtype=dtype, engine=detect_engine(side))


def _require_same_origin(plan: EvaluationPlan, side: ImageSource, reference: SystemInfo) -> None:
    """Refuses a reference that is not the pipeline that the candidate's manifest says it was pressed from."""
    manifest = read_manifest(side.folder.parent) if side.folder.name in EXPORT_FOLDERS else None
    if manifest and reference.kind == "diffusers" and digest_files(manifest.sources) != reference.folder.sha256:
        raise UserError(
            f"{side.folder} was pressed from {manifest.source} as it was then, which is not what "
            f"{plan.reference.folder} holds; give that pipeline as --model, or press again."
        )


# ---------------------------------------------------------------- results


def _score_all(
    plan: EvaluationPlan, found: MetricSet, identity: RunIdentity, compared: ComparisonSet, progress: Progress
) -> ScoreTable:
    tasks = [task for prompt, seed in iter_samples(plan) for task in make_tasks(prompt, seed, compared)]
    with open_score_cache(plan.score_cache) as memo:
        return score_images(tasks, found.metrics, identity.metrics, memo, progress, overwrite=not plan.resume)


def _build_results(
    plan: EvaluationPlan,
    found: MetricSet,
    limits: tuple[GateSpec, ...],
    identity: RunIdentity,
    rows: tuple[SampleResult, ...],
) -> Results:
    """All that follows from the rows."""
    scores = list_pair_scores(found.metrics), list_image_scores(found.metrics, plan.ground_truth is not None)
    variants = {name: aggregate(select_variant(rows, name), *scores) for name in plan.candidates}
    again = [VariantPair(row, row.noise_floor) for row in rows if row.noise_floor]
    gates = tuple(gate for name, summary in variants.items() for gate in evaluate_gates(name, summary, limits))
    return Results(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        edgepress=__version__,
        identity=identity,
        stage_seconds={},
        metric_costs={},
        pair_scores=scores[0],
        image_scores=scores[1],
        unavailable_metrics={metric.name: metric.reason for metric in found.unavailable},
        reference_defects=find_reference_defects(rows),
        variants=variants,
        noise_floor=aggregate(again, *scores) if again else None,
        gates=gates,
        strict=plan.strict,
        verdict=overall_verdict(gates, variants.values()),
        baseline=None,
        history=None,
        samples=rows,
        prompt_subset=plan.prompt_subset,
    )
