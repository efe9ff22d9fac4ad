"""Runs an evaluation: reads both folders, paints what is missing, measures, and writes results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ..artifact import read_manifest, versions
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import prompts_sha256
from .generate import Source, batches_of, files_of, generate
from .identity import FolderIdentity, digest_of, identify
from .measure import Pair, measure
from .plan import Plan
from .registry import Metric, discover, pair_scores, picture_scores
from .results import Identity, Results, Row, SamplingIdentity, save_results
from .summary import summarise

RESULTS = "results.json"


def evaluate(plan: Plan, progress: Progress = silent) -> Results:
    """Compares the candidate with the reference, and writes `results.json` into the plan's output folder.

    Pictures that were made before, by this run or by one that was killed, are not made again.

    Raises:
        UserError: nothing to compare, a pipeline that cannot be loaded, pictures that differ in size.
    """
    if not plan.prompts or plan.seeds < 1:
        raise UserError("There is nothing to compare: give at least one prompt and one seed.")
    reference = identify(plan.reference, progress, "reading the reference")
    _check_origin(plan, reference)
    candidate = identify(plan.candidate, progress, "reading the candidate")
    pairs = _paint(plan, reference, candidate, progress)
    metrics = discover()
    rows = _measure(pairs, metrics, progress)
    results = _results(_identity(plan, reference, candidate, metrics), metrics, rows)
    save_results(results, plan.output / RESULTS)
    return results


def _check_origin(plan: Plan, reference: FolderIdentity) -> None:
    """Refuses a reference that is not the pipeline that the candidate's manifest says it was pressed from."""
    manifest = read_manifest(plan.candidate.parent)
    if manifest and plan.candidate.name == "model" and digest_of(manifest.sources) != reference.sha256:
        raise UserError(
            f"{plan.candidate} was pressed from {manifest.source} as it was then, which is not what {plan.reference} "
            "holds; give that pipeline as --model, or press again."
        )


def _paint(plan: Plan, reference: FolderIdentity, candidate: FolderIdentity, progress: Progress) -> list[Pair]:
    """Makes the reference's pictures, then the candidate's, with one pipeline in memory at a time."""
    work = batches_of(plan.prompts, plan.seeds, plan.sampling)
    painted = []
    sources = (
        Source(plan.reference, reference.sha256, plan.dtype, plan.sampling),
        Source(plan.candidate, candidate.sha256, plan.dtype, plan.sampling),
    )
    for source, name in zip(sources, ("reference", "candidate"), strict=True):
        generate(source, work, plan.cache, progress, f"painting with the {name}")
        painted.append([file for batch in work for file in files_of(source, batch, plan.cache)])
    asked = [(prompt, batch.seed) for batch in work for prompt in batch.prompts]
    return [Pair(*what, *files) for what, files in zip(asked, zip(*painted, strict=True), strict=True)]


def _measure(pairs: Sequence[Pair], metrics: Sequence[Metric], progress: Progress) -> tuple[Row, ...]:
    rows: list[Row] = []
    for pair in pairs:
        progress("measuring", len(rows), len(pairs))
        rows.append(measure(pair, metrics))
    progress("measuring", len(rows), len(pairs))
    return tuple(rows)


def _identity(plan: Plan, reference: FolderIdentity, candidate: FolderIdentity, metrics: Sequence[Metric]) -> Identity:
    return Identity(
        reference=reference,
        candidate=candidate,
        sampling=SamplingIdentity(**asdict(plan.sampling), seeds=plan.seeds),
        dtype=plan.dtype,
        prompts_sha256=prompts_sha256(plan.prompts),
        metrics={metric.name: metric.version() for metric in metrics},
        libraries=versions(),
    )


def _results(identity: Identity, metrics: Sequence[Metric], rows: tuple[Row, ...]) -> Results:
    pairs, pictures = pair_scores(metrics), picture_scores(metrics)
    summary = summarise(rows, pairs, pictures)
    return Results(identity=identity, pair_scores=pairs, picture_scores=pictures, summary=summary, rows=rows)
