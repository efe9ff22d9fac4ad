"""Runs an evaluation: reads all folders, paints what is missing, measures, judges, and writes results.json."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from .. import __version__
from ..artifact import read_manifest, versions
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import prompts_sha256
from . import baseline, history
from .aside import RESULTS, forget, put_aside
from .collect import asked, collect
from .gates import Limit, judge, limits_of, verdict_of
from .identity import digest_of, identify
from .measure import Measured, measure
from .memo import opened
from .painters import engine_of
from .pairing import Compared, row_of, tasks_of
from .plan import Plan
from .registry import Found, discover, pair_scores, picture_scores
from .results import Identity, Results, Row, SamplingIdentity, Subject, load_results, save_results
from .sides import FORMS, Side
from .summary import Pair, pairs_of, reference_defects, summarise


def evaluate(plan: Plan, progress: Progress = silent) -> Results:
    """Compares the candidates with the reference, and writes `results.json` into the plan's output folder.

    Pictures and readings that were made before, by this run or by one that was killed, are not made again. What the
    folder held of an earlier evaluation is put aside first, and removed when there are new results.

    Raises:
        UserError: nothing to compare, a side that cannot be loaded; limits, baseline or truth that do not fit.
    """
    try:
        then = load_results(plan.baseline) if plan.baseline else None  # which may be among what is put aside
    finally:
        put_aside(plan.output)
    if not plan.prompts or plan.seeds < 1 or not plan.candidates:
        raise UserError("There is nothing to compare: give at least one prompt, one seed and one candidate.")
    found = discover(plan.settings, plan.metrics)
    limits = limits_of(plan.gates, [*found.metrics, *found.unavailable], plan.truth is not None, plan.metrics)
    if plan.history:
        history.ready(plan.history)
    seconds: dict[str, float] = {}
    with _timed(seconds, "reading"):
        identity = _identity(plan, found, progress)
    if plan.baseline and then:
        baseline.check(plan.baseline, then, identity)
    with _timed(seconds, "painting"):
        compared = collect(plan, identity, progress)
    with _timed(seconds, "measuring"):
        measured = _measure(plan, found, identity, compared, progress)
    rows = tuple(row_of(*one, compared, measured.readings, plan.cache) for one in asked(plan))
    results = _results(plan, found, limits, identity, rows)
    results = results.model_copy(update={"seconds": seconds, "costs": measured.costs})
    if plan.baseline and then:
        results = results.model_copy(update={"baseline": baseline.compare(plan.baseline, then, results)})
    if plan.history:
        results = results.model_copy(update={"history": history.record(plan.history, results, found.metrics)})
    save_results(results, plan.output / RESULTS)
    forget(plan.output)
    return results


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the wall time of a stage."""
    begin = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - begin


# ---------------------------------------------------------------- identity


def _identity(plan: Plan, found: Found, progress: Progress) -> Identity:
    reference = _subject(plan, plan.reference, progress, "reading the reference")
    variants = {name: _subject(plan, side, progress, f"reading {name}") for name, side in plan.candidates.items()}
    for side in plan.candidates.values():
        _check_origin(plan, side, reference)
    sampling = asdict(plan.sampling) if plan.sampling else dict.fromkeys(("height", "width", "steps", "guidance"))
    return Identity(
        reference=reference,
        variants=variants,
        truth=identify(plan.truth, progress, "reading true pictures") if plan.truth else None,
        sampling=SamplingIdentity(**sampling, seeds=plan.seeds),
        prompts=plan.asked,
        prompts_sha256=prompts_sha256(plan.prompts),
        metrics={metric.name: metric.version() for metric in found.metrics},
        libraries=versions(),
        device=plan.device,
        pictures=str(plan.cache.absolute()),
    )


def _subject(plan: Plan, side: Side, progress: Progress, stage: str) -> Subject:
    dtype = side.dtype or plan.dtype if side.kind == "diffusers" else None
    folder = identify(side.folder, progress, stage)
    return Subject(kind=side.kind, folder=folder, dtype=dtype, engine=engine_of(side))


def _check_origin(plan: Plan, side: Side, reference: Subject) -> None:
    """Refuses a reference that is not the pipeline that the candidate's manifest says it was pressed from."""
    manifest = read_manifest(side.folder.parent) if side.folder.name in FORMS else None
    if manifest and reference.kind == "diffusers" and digest_of(manifest.sources) != reference.folder.sha256:
        raise UserError(
            f"{side.folder} was pressed from {manifest.source} as it was then, which is not what "
            f"{plan.reference.folder} holds; give that pipeline as --model, or press again."
        )


# ---------------------------------------------------------------- results


def _measure(plan: Plan, found: Found, identity: Identity, compared: Compared, progress: Progress) -> Measured:
    tasks = [task for prompt, seed in asked(plan) for task in tasks_of(prompt, seed, compared)]
    with opened(plan.memo) as memo:
        return measure(tasks, found.metrics, identity.metrics, memo, progress, anew=not plan.resume)


def _results(plan: Plan, found: Found, limits: tuple[Limit, ...], identity: Identity, rows: tuple[Row, ...]) -> Results:
    """All that follows from the rows."""
    scores = pair_scores(found.metrics), picture_scores(found.metrics, plan.truth is not None)
    variants = {name: summarise(pairs_of(rows, name), *scores) for name in plan.candidates}
    again = [Pair(row, row.floor) for row in rows if row.floor]
    gates = tuple(gate for name, summary in variants.items() for gate in judge(name, summary, limits))
    return Results(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        edgepress=__version__,
        identity=identity,
        seconds={},
        costs={},
        pair_scores=scores[0],
        picture_scores=scores[1],
        unmeasured={metric.name: metric.reason for metric in found.unavailable},
        reference_defects=reference_defects(rows),
        variants=variants,
        floor=summarise(again, *scores) if again else None,
        gates=gates,
        strict=plan.strict,
        verdict=verdict_of(gates, variants.values()),
        baseline=None,
        history=None,
        rows=rows,
        limited=plan.limited,
    )
