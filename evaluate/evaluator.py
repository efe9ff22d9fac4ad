"""Runs evaluations: generates the missing images, computes the metrics, checks the gates, and writes results.json."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..common.cluster_address import check_cluster
from ..common.errors import UserError
from ..common.executor import Executor, open_executor
from ..common.progress import Progress, no_progress
from ..prompts.prompt import prompt_set_digest
from ..storage.files import digest_files
from ..storage.layout import GENERATORS, locate_folder
from ..storage.machine_check import MachineCheck, make_machine_check
from ..storage.manifest import library_versions
from ..storage.publishing import shared_lock
from ..storage.snapshot import FolderSnapshot
from .checks import check_components, check_plan, check_recorded_files
from .collection import collect_images, iter_samples, load_ground_truth
from .generation.candidates import ImageSource, read_origin
from .metrics.base import Metric, list_image_scores, list_pair_scores
from .metrics.registry import MetricSet, load_metrics
from .plan import EvaluationPlan
from .report.formatting import pluralize
from .report.publishing import publish_reports, publish_results, withdraw_latest
from .results import baseline, history
from .results.aggregate import VariantPair, aggregate, find_reference_defects, select_variant, summarize_costs
from .results.folder_identity import add_loras, hash_folder
from .results.gates import GateSpec, evaluate_gates, exclude_pair_scores, overall_verdict, resolve_gates
from .results.locations import name_location
from .results.results_file import load_results
from .results.schema import Results, RunIdentity, SampleResult, SamplingInfo, SystemInfo
from .scoring.pairs import ComparisonSet, build_sample, make_tasks
from .scoring.runner import ScoreTable, score_images
from .scoring.score_cache import open_score_cache
from .system_description import describe_system

logger = logging.getLogger(__name__)


def run_evaluation(plan: EvaluationPlan, progress: Progress = no_progress, *, write_reports: bool = False) -> Results:
    """Runs an evaluation, and writes `results.json` to the output folder, and to the folder of its plan in it.

    Images and scores that are cached, by this run or by one that was killed, are reused. Nothing in the output folder
    is touched before everything has been checked; results of other plans stay where they are.

    Args:
        plan: What to evaluate.
        progress: Called with stage, number of finished items and total.
        write_reports: Whether to write the reports as well.

    Raises:
        UserError: There is nothing to compare, a source cannot be loaded or is changed meanwhile, a metric failed,
            gates, baseline or ground truth do not fit, or `edgepress clean` is removing cached images.
    """
    check_cluster(plan.ray)
    baseline_results = load_results(plan.baseline) if plan.baseline else None
    if plan.baseline and baseline_results:
        digest = prompt_set_digest(plan.prompts)
        baseline.require_same_plan(plan.baseline, baseline_results, digest, _describe_sampling(plan), plan.candidates)
    check_plan(plan)
    check_recorded_files(plan, progress)
    ground_truth = load_ground_truth(plan)
    metrics = load_metrics(plan.metric_settings, plan.metrics)
    has_ground_truth = plan.ground_truth is not None
    gates = resolve_gates(plan.gates, [*metrics.metrics, *metrics.unavailable], has_ground_truth, plan.metrics)
    for gate in gates:
        if gate.unmeasured_reason:
            logger.warning("The gate %s will not be measured: %s.", gate.name, gate.unmeasured_reason)
    check_components(plan)
    if plan.history:
        history.init_history(plan.history)
    seconds: dict[str, float] = {}
    read = [source for source in (plan.reference, *plan.candidates.values()) if source.kind not in ("images", "server")]
    snapshots = {folder: FolderSnapshot.take(folder) for folder in {source.folder for source in read}}
    with _record_time(seconds, "reading"):
        identity = _build_identity(plan, metrics, progress)
    if plan.baseline and baseline_results:
        baseline.require_comparable(plan.baseline, baseline_results, identity)
    # Reports show images of the cache.
    with shared_lock(plan.image_cache.parent), open_executor(plan.ray, partial(_make_machine_check, plan)) as executor:
        with _withdraw_latest(plan.output):
            with _record_time(seconds, "generating"):
                images = collect_images(plan, identity, ground_truth, snapshots, progress, executor)
            with _record_time(seconds, "scoring"):
                scores = _score_all(plan, metrics, identity, images, progress, executor)
            samples = tuple(build_sample(*key, images, scores.results, plan.image_cache) for key in iter_samples(plan))
            results = _build_results(plan, metrics, gates, identity, samples)
            update = {"stage_seconds": seconds, "metric_costs": scores.costs, **_collect_costs(plan, images)}
            results = results.model_copy(update=update)
            if plan.baseline and baseline_results:
                comparison = baseline.compare_runs(plan.baseline, baseline_results, results)
                results = results.model_copy(update={"baseline": comparison})
            publish_results(results, plan.output)
        if plan.history:  # last, since results must not be lost where it cannot be written
            points = history.append_run(plan.history, results, metrics.metrics)
            results = results.model_copy(update={"history": points})
            publish_results(results, plan.output)
        if write_reports:
            publish_reports(results, plan.output)
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


@contextmanager
def _withdraw_latest(output: Path) -> Iterator[None]:
    """Takes the latest results from the top of the output folder; if the run fails, says where they are now."""
    folder = withdraw_latest(output)
    try:
        yield
    except BaseException:
        if folder:
            logger.warning("There are no new results. Those of the last run are in %s.", folder)
        raise


@contextmanager
def _record_time(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Records the wall time of a stage."""
    begin = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - begin


# ---------------------------------------------------------------- identity


def _build_identity(plan: EvaluationPlan, metrics: MetricSet, progress: Progress) -> RunIdentity:
    reference = describe_system(plan.reference, plan.dtype, None, progress, "reading the reference")
    variants = {
        name: describe_system(source, plan.dtype, reference, progress, f"reading {name}")
        for name, source in plan.candidates.items()
    }
    for source in plan.candidates.values():
        _require_same_origin(plan, source, reference)
    ground_truth = None
    if plan.ground_truth:
        ground_truth = hash_folder(plan.ground_truth, progress, "reading ground-truth images")
    return RunIdentity(
        reference=reference,
        variants=variants,
        ground_truth=ground_truth,
        sampling=_describe_sampling(plan),
        prompt_set=name_location(plan.prompt_set) if plan.prompt_set else None,
        prompts_sha256=prompt_set_digest(plan.prompts),
        metrics={metric.name: metric.version() for metric in metrics.metrics},
        libraries=library_versions(),
        device=plan.device,
        image_folder=str(plan.image_cache.absolute()),
    )


def _describe_sampling(plan: EvaluationPlan) -> SamplingInfo:
    sampling = asdict(plan.sampling) if plan.sampling else dict.fromkeys(("height", "width", "steps", "guidance"))
    return SamplingInfo(**sampling, num_seeds=plan.seeds)


def _require_same_origin(plan: EvaluationPlan, source: ImageSource, reference: SystemInfo) -> None:
    """Refuses a reference that is not the pipeline that the candidate was quantized from."""
    manifest = read_origin(source) if locate_folder(source.folder).name in GENERATORS else None
    if manifest is None or reference.kind != "diffusers":
        return
    if add_loras(digest_files(manifest.sources), manifest.loras) != reference.folder.sha256:
        made_with = " and ".join([manifest.source, *(f"the LoRA {lora}" for lora in manifest.loras)])
        compared = " and ".join([str(plan.reference.folder), *(f"the LoRA {lora}" for lora in reference.loras)])
        raise UserError(
            f"{source.folder} was quantized from {made_with}, whose files differ from those in {compared}. "
            "Pass the original pipeline as --model, or quantize again."
        )


# ---------------------------------------------------------------- results


def _collect_costs(plan: EvaluationPlan, images: ComparisonSet) -> dict[str, Any]:
    """What generating the images cost, as fields of the results."""
    costs = {
        name: summarize_costs(images.variants[name].costs, source.kind == "server")
        for name, source in plan.candidates.items()
    }
    reference = summarize_costs(images.reference.costs)
    return {"costs": {name: cost for name, cost in costs.items() if cost}, "reference_cost": reference}


def _score_all(
    plan: EvaluationPlan,
    metrics: MetricSet,
    identity: RunIdentity,
    images: ComparisonSet,
    progress: Progress,
    executor: Executor,
) -> ScoreTable:
    tasks = [task for prompt, seed in iter_samples(plan) for task in make_tasks(prompt, seed, images)]
    with open_score_cache(plan.score_cache) as cache:
        return score_images(
            tasks,
            metrics.metrics,
            identity.metrics,
            cache,
            progress,
            overwrite=plan.restart,
            executor=executor,
            load=partial(_load_metrics, plan),
        )


def _load_metrics(plan: EvaluationPlan) -> list[Metric]:
    return load_metrics(plan.metric_settings, plan.metrics).metrics


def _make_machine_check(plan: EvaluationPlan) -> AbstractContextManager[MachineCheck]:
    """Makes a check that another machine has this version of edgepress, what is compared, and the cache."""
    folders = [source.folder for source in (plan.reference, *plan.candidates.values()) if source.kind != "server"]
    return make_machine_check(__name__, folders, [plan.image_cache.parent])


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
    gates = tuple(
        gate
        for name, summary in variants.items()
        for gate in evaluate_gates(name, summary, exclude_pair_scores(gate_specs, identity.variants[name].own_noise))
    )
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
