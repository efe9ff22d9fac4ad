"""Runs evaluations: generates the missing images, computes the metrics, checks the gates, and writes results.json."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from .. import __version__
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..prompts.prompt import prompt_set_digest
from ..recipes.loader import load_recipe
from ..recipes.schema import Recipe
from ..storage.layout import GENERATORS, Artifact
from ..storage.manifest import library_versions, read_manifest
from .collection import collect_images, iter_samples
from .generation.candidates import ImageSource
from .generation.generators import detect_engine
from .metrics.base import list_image_scores, list_pair_scores
from .metrics.registry import MetricSet, load_metrics
from .plan import EvaluationOptions, EvaluationPlan, plan_evaluation, plan_image_pairs
from .report.formatting import pluralize
from .report.previous_files import RESULTS_FILE, discard_previous, stash_previous
from .results import baseline, history
from .results.aggregate import VariantPair, aggregate, find_reference_defects, select_variant
from .results.folder_identity import digest_files, hash_folder
from .results.gates import GateSpec, evaluate_gates, overall_verdict, resolve_gates
from .results.schema import Results, RunIdentity, SampleResult, SamplingInfo, SystemInfo, load_results, save_results
from .scoring.pairs import ComparisonSet, build_sample, make_tasks
from .scoring.runner import ScoreTable, score_images
from .scoring.score_cache import open_score_cache

logger = logging.getLogger(__name__)

Candidates = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
"""Candidates as a folder, several folders, or folders by name."""


def evaluate_pipelines(
    reference: str | Path | None = None,
    candidates: Candidates = (),
    *,
    recipe: Recipe | str | Path | None = None,
    prompts: str | Path | None = None,
    limit: int | None = None,
    seeds: int = 1,
    ground_truth: str | Path | None = None,
    clip: str | None = None,
    lpips: str | Path | None = None,
    metrics: Sequence[str] = (),
    baseline: str | Path | None = None,
    history: str | Path | None = None,
    gates: bool = True,
    noise_floor: bool | None = None,
    output: str | Path | None = None,
    restart: bool = False,
    progress: Progress = no_progress,
) -> Results:
    """Evaluates candidates against a reference on the same prompts and the same initial noise.

    Pipelines and exports generate images; existing images are read from folders. Images and scores are cached in
    `artifacts/.work`, so that an interrupted run resumes and a second run is fast. All numbers are also written to
    `results.json` in the output folder. Pairs of images that could not be compared are logged as warnings.

    Example:
        >>> results = evaluate_pipelines("demo", {"int4": "artifacts/orin/model"}, limit=8)
        >>> print(results)

    Args:
        reference: A diffusers folder, a model id, `demo`, an export, or a folder of images. Default: the pipeline that
            the first candidate was quantized from, or else the recipe's.
        candidates: Folders of quantized pipelines, exports, artifacts or images. A folder may end in `@float32` or
            `@bfloat16`, the compute dtype of a diffusers pipeline. Default: `artifacts/<device>/model` of the recipe.
        recipe: Name, file or object of a recipe, which decides what is not given here. Default: the schema's defaults.
        prompts: Name or file of the prompt set.
        limit: Number of prompts to use, from the start of the set.
        seeds: Number of images per prompt.
        ground_truth: Folder of ground-truth images named by prompt id, which all generated images are compared with.
        clip: CLIP weights for CLIP-I and CLIP-T, such as `local-dir:FOLDER`.
        lpips: Folder of the LPIPS weights.
        metrics: Names of the metrics to compute. Default: all available ones.
        baseline: `results.json` of an earlier run, to report changes against.
        history: SQLite file to add the scores to.
        gates: Whether to check the recipe's gates.
        noise_floor: Whether to generate the reference's images twice, and compare them. Default: the recipe decides.
        output: Folder of the results. Default: `evaluation` next to the first candidate.
        restart: Whether to generate all images and compute all scores again instead of using cached ones.
        progress: Called with stage, number of finished items and total.

    Returns:
        The results, which can be printed.

    Raises:
        UserError: An input does not exist or does not fit the others, or a metric failed.
    """
    options = EvaluationOptions(
        model=str(reference) if reference is not None else None,
        candidates=_format_candidates(candidates),
        prompts=str(prompts) if prompts is not None else None,
        limit=limit,
        seeds=seeds,
        ground_truth=_to_path(ground_truth),
        clip=clip,
        lpips=str(lpips) if lpips is not None else None,
        metrics=tuple(metrics),
        baseline=_to_path(baseline),
        history=_to_path(history),
        gates=gates,
        noise_floor=noise_floor,
        output=_to_path(output),
        restart=restart,
    )
    if recipe is None and not (options.model and options.candidates):
        raise UserError("Nothing to compare. Give a recipe, or a reference and candidates.")
    return _run_and_warn(plan_evaluation(_load_recipe(recipe), options), progress)


def evaluate_images(
    reference: str | Path,
    variant: str | Path,
    *,
    recipe: Recipe | str | Path | None = None,
    options: EvaluationOptions | None = None,
    progress: Progress = no_progress,
) -> Results:
    """Compares two folders of images, paired by file stem.

    Args:
        reference: Folder of reference images.
        variant: Folder of images to compare with them.
        recipe: Name, file or object of a recipe, for its gates.
        options: Prompt set, metrics and output; `model`, `candidates` and `seeds` have no effect.
        progress: Called with stage, number of finished items and total.

    Raises:
        UserError: A folder contains no images, or images that match no prompt of the prompt set.
    """
    plan = plan_image_pairs(_load_recipe(recipe), Path(reference), Path(variant), options or EvaluationOptions())
    return _run_and_warn(plan, progress)


def run_evaluation(plan: EvaluationPlan, progress: Progress = no_progress) -> Results:
    """Runs an evaluation, and writes `results.json` to the output folder.

    Images and scores that are cached, by this run or by one that was killed, are reused. Files of an earlier evaluation
    in the output folder are renamed first, and removed once there are new results.

    Args:
        plan: What to evaluate.
        progress: Called with stage, number of finished items and total.

    Raises:
        UserError: There is nothing to compare, a source cannot be loaded, a metric failed, or gates, baseline or ground
            truth do not fit.
    """
    try:  # the baseline may be among the files that are renamed
        baseline_results = load_results(plan.baseline) if plan.baseline else None
    finally:
        stash_previous(plan.output)
    if not plan.prompts or plan.seeds < 1 or not plan.candidates:
        raise UserError("Nothing to compare. Give at least one prompt, one seed and one candidate.")
    metrics = load_metrics(plan.metric_settings, plan.metrics)
    has_ground_truth = plan.ground_truth is not None
    gates = resolve_gates(plan.gates, [*metrics.metrics, *metrics.unavailable], has_ground_truth, plan.metrics)
    if plan.history:
        history.init_history(plan.history)
    seconds: dict[str, float] = {}
    with _record_time(seconds, "reading"):
        identity = _build_identity(plan, metrics, progress)
    if plan.baseline and baseline_results:
        baseline.require_comparable(plan.baseline, baseline_results, identity)
    with _record_time(seconds, "generating"):
        images = collect_images(plan, identity, progress)
    with _record_time(seconds, "scoring"):
        scores = _score_all(plan, metrics, identity, images, progress)
    samples = tuple(build_sample(*sample, images, scores.results, plan.image_cache) for sample in iter_samples(plan))
    results = _build_results(plan, metrics, gates, identity, samples)
    results = results.model_copy(update={"stage_seconds": seconds, "metric_costs": scores.costs})
    if plan.baseline and baseline_results:
        comparison = baseline.compare_runs(plan.baseline, baseline_results, results)
        results = results.model_copy(update={"baseline": comparison})
    if plan.history:
        points = history.append_run(plan.history, results, metrics.metrics)
        results = results.model_copy(update={"history": points})
    save_results(results, plan.output / RESULTS_FILE)
    discard_previous(plan.output)
    return results


def describe_unmeasured(results: Results) -> list[str]:
    """Returns a sentence for each reason why images were not compared or a gate was not measured."""
    failures = [
        f"{pluralize(len(summary.failures), 'pair')} of {name} could not be compared. The first one: "
        f"{first.prompt}, seed {first.seed}: {first.failure}."
        for name, summary in results.variants.items()
        for first in summary.failures[:1]
    ]
    gates = [gate for gate in results.gates if gate.verdict == "not measured"]
    return failures + [f"The gate {gate.name} of {gate.variant} was not measured: {gate.reason}." for gate in gates]


# ---------------------------------------------------------------- arguments


def _load_recipe(recipe: Recipe | str | Path | None) -> Recipe:
    if recipe is None:
        return Recipe(device="custom")
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _format_candidates(candidates: Candidates) -> tuple[str, ...]:
    if isinstance(candidates, Mapping):
        return tuple(f"{name}={folder}" for name, folder in candidates.items())
    folders = [candidates] if isinstance(candidates, str | Path) else candidates
    return tuple(str(folder) for folder in folders)


def _to_path(path: str | Path | None) -> Path | None:
    return Path(path) if path is not None else None


def _run_and_warn(plan: EvaluationPlan, progress: Progress) -> Results:
    results = run_evaluation(plan, progress)
    for name, reason in results.unavailable_metrics.items():
        logger.info("The metric %s is not available: %s.", name, reason)
    for message in describe_unmeasured(results):
        logger.warning("%s", message)
    return results


@contextmanager
def _record_time(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Records the wall time of a stage."""
    begin = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - begin


# ---------------------------------------------------------------- identity


def _build_identity(plan: EvaluationPlan, metrics: MetricSet, progress: Progress) -> RunIdentity:
    reference = _describe_system(plan, plan.reference, progress, "reading the reference")
    variants = {
        name: _describe_system(plan, source, progress, f"reading {name}") for name, source in plan.candidates.items()
    }
    for source in plan.candidates.values():
        _require_same_origin(plan, source, reference)
    ground_truth = None
    if plan.ground_truth:
        ground_truth = hash_folder(plan.ground_truth, progress, "reading ground-truth images")
    sampling = asdict(plan.sampling) if plan.sampling else dict.fromkeys(("height", "width", "steps", "guidance"))
    return RunIdentity(
        reference=reference,
        variants=variants,
        ground_truth=ground_truth,
        sampling=SamplingInfo(**sampling, num_seeds=plan.seeds),
        prompt_set=plan.prompt_set,
        prompts_sha256=prompt_set_digest(plan.prompts),
        metrics={metric.name: metric.version() for metric in metrics.metrics},
        libraries=library_versions(),
        device=plan.device,
        image_folder=str(plan.image_cache.absolute()),
    )


def _describe_system(plan: EvaluationPlan, source: ImageSource, progress: Progress, stage: str) -> SystemInfo:
    dtype = source.dtype or plan.dtype if source.kind == "diffusers" else None
    folder = hash_folder(source.folder, progress, stage)
    return SystemInfo(kind=source.kind, folder=folder, dtype=dtype, engine=detect_engine(source))


def _require_same_origin(plan: EvaluationPlan, source: ImageSource, reference: SystemInfo) -> None:
    """Refuses a reference that is not the pipeline that the candidate was quantized from."""
    artifact = Artifact.containing(source.folder)
    manifest = read_manifest(artifact.path) if source.folder.name in GENERATORS else None
    if manifest and reference.kind == "diffusers" and digest_files(manifest.sources) != reference.folder.sha256:
        raise UserError(
            f"{source.folder} was quantized from {manifest.source}, whose files differ from those in "
            f"{plan.reference.folder}. Pass the original pipeline as --model, or quantize again."
        )


# ---------------------------------------------------------------- results


def _score_all(
    plan: EvaluationPlan, metrics: MetricSet, identity: RunIdentity, images: ComparisonSet, progress: Progress
) -> ScoreTable:
    tasks = [task for prompt, seed in iter_samples(plan) for task in make_tasks(prompt, seed, images)]
    with open_score_cache(plan.score_cache) as cache:
        return score_images(tasks, metrics.metrics, identity.metrics, cache, progress, overwrite=plan.restart)


def _build_results(
    plan: EvaluationPlan,
    metrics: MetricSet,
    gate_specs: tuple[GateSpec, ...],
    identity: RunIdentity,
    samples: tuple[SampleResult, ...],
) -> Results:
    """Builds everything that follows from the samples."""
    scores = list_pair_scores(metrics.metrics), list_image_scores(metrics.metrics, plan.ground_truth is not None)
    variants = {name: aggregate(select_variant(samples, name), *scores) for name in plan.candidates}
    repeated = [VariantPair(sample, sample.noise_floor) for sample in samples if sample.noise_floor]
    gates = tuple(gate for name, summary in variants.items() for gate in evaluate_gates(name, summary, gate_specs))
    return Results(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        edgepress=__version__,
        identity=identity,
        stage_seconds={},
        metric_costs={},
        pair_scores=scores[0],
        image_scores=scores[1],
        unavailable_metrics={metric.name: metric.reason for metric in metrics.unavailable},
        reference_defects=find_reference_defects(samples),
        variants=variants,
        noise_floor=aggregate(repeated, *scores) if repeated else None,
        gates=gates,
        strict=plan.strict,
        verdict=overall_verdict(gates, variants.values()),
        baseline=None,
        history=None,
        samples=samples,
        prompt_subset=plan.prompt_subset,
    )
