"""results.json: every number of an evaluation, and what it was measured on; all that is shown comes from this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ...common.errors import UserError
from ...prompts.prompt import Prompt
from ..images.defects import Defect
from ..metrics.base import Score
from ..stats.bootstrap import MeanCI
from .folder_identity import FolderIdentity

ALL_GROUP = "all"  # the name of the group of all pictures
TRUNCATED = "cut"  # the note of a picture whose prompt was not read to its end
SCHEMA_VERSION = 2

SystemKind = Literal["diffusers", "onnx", "rknn", "images"]
Verdict = Literal["passed", "failed", "inconclusive", "not measured"]


class ResultsModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what was measured: the rows


class ImageResult(ResultsModel):
    """One picture: its file (relative to `Identity.pictures`, or absolute), its scores and the evidence for them."""

    file: str
    values: dict[str, FiniteFloat | None]
    notes: dict[str, tuple[str, ...]]
    defect: Defect | None


class PairResult(ResultsModel):
    """A variant's picture and what it scores against the reference's (PSNR is None where they are identical).

    failure: why nothing was compared: `missing`, `unreadable` (which may go on to say why), `size WxH instead of WxH`,
    or what is wrong with the reference's: `reference missing`, `reference unreadable`, `reference black`, `reference
    flat` or `reference nan`. Such a row has no values and counts in no mean.
    """

    identical: bool
    values: dict[str, FiniteFloat | None]
    image: ImageResult | None
    failure: str | None = None


class SampleResult(ResultsModel):
    """One prompt and seed. truth: the true picture's file. floor: the reference run again."""

    prompt: Prompt
    seed: int
    ground_truth: str | None
    reference: ImageResult | None
    variants: dict[str, PairResult]
    noise_floor: PairResult | None = None


# ---------------------------------------------------------------- what the rows come to


class PairScoreSummary(ResultsModel):
    """A pair score: its mean, and the pair where it is worst."""

    mean: MeanCI
    worst: FiniteFloat
    worst_prompt: str
    worst_seed: int


class ImageScoreSummary(ResultsModel):
    """A picture score of the pairs where both pictures have it.

    drop: the mean paired loss, above 0 where the variant is worse. relative: the drop by the size of the reference's
    mean, as a fraction; None where that is 0.
    """

    reference: MeanCI
    variant: MeanCI
    drop: MeanCI
    relative_drop: FiniteFloat | None


class ScoreGroup(ResultsModel):
    """The pictures of all prompts, of a language, or of a category's value; scores measured on none are left out."""

    name: str
    num_pairs: int
    pair_scores: dict[str, PairScoreSummary]
    image_scores: dict[str, ImageScoreSummary]


class McNemarResult(ResultsModel):
    """Pairs where only one of the two pictures is right; p: exact, two-sided, that this is chance."""

    only_reference: int
    only_variant: int
    p_value: FiniteFloat


class FailedPair(ResultsModel):
    prompt: str
    seed: int
    failure: str


class DefectRecord(ResultsModel):
    """A picture that shows nothing, or what another prompt's does. new: the reference's picture has no defect."""

    prompt: str
    seed: int
    defect: Defect
    new: bool


class WorstPair(ResultsModel):
    """A pair among the worst by a score: the value of a pair score, the drop of a picture score."""

    score: str
    prompt: str
    seed: int
    value: FiniteFloat


class VariantSummary(ResultsModel):
    """Computed from the rows alone; the first group is that of all pictures.

    pictures: pairs that were compared. detectable: by score, the smallest drop (of a pair score: distance of the mean)
    that so many prompts of such spread show with 80 % power at 5 %, two-sided.
    """

    num_pairs: int
    num_prompts: int
    num_identical: int
    failures: tuple[FailedPair, ...]
    defects: tuple[DefectRecord, ...]
    groups: tuple[ScoreGroup, ...]
    mcnemar: dict[str, McNemarResult]
    minimum_detectable_effect: dict[str, FiniteFloat]
    worst_pairs: tuple[WorstPair, ...]


class GateResult(ResultsModel):
    """A limit of the recipe, and what a variant made of it.

    limit, value, low, high, detectable: in the score's unit as it is kept (a fraction for `%`); with `relative` as
    fractions of the reference's mean; a number of pictures for `defects_max`. score: the score that was looked at.
    """

    variant: str
    name: str
    score: str
    limit: FiniteFloat
    relative: bool
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    verdict: Verdict
    reason: str
    minimum_detectable_effect: FiniteFloat | None


class ScoreChange(ResultsModel):
    """A score of a variant's pictures then and now, over the pairs measured both times; change: now - then, paired."""

    variant: str
    score: str
    baseline: FiniteFloat
    current: FiniteFloat
    change: MeanCI


class BaselineComparison(ResultsModel):
    """Earlier results that these were compared with. only_then, only_now: variants that the other lacks."""

    path: str
    created: str
    edgepress: str
    changes: tuple[ScoreChange, ...]
    only_baseline: tuple[str, ...]
    only_current: tuple[str, ...]


class HistoryPoint(ResultsModel):
    """A score of one run of the history, this one included. kind: the mean of a pair score, or a picture score's drop.

    created: when, UTC, ISO 8601.
    """

    created: str
    edgepress: str
    variant: str
    score: str
    kind: Literal["mean", "drop"]
    value: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None
    num_pairs: int


class MetricCost(ResultsModel):
    """What a metric cost this run: readings that were made, in CPU seconds, and those that were kept from earlier."""

    computed: int
    cached: int
    cpu_seconds: FiniteFloat


# ---------------------------------------------------------------- what was compared


class SamplingInfo(ResultsModel):
    """size, steps and guidance are None where only pictures made elsewhere were compared."""

    height: int | None
    width: int | None
    steps: int | None
    guidance: FiniteFloat | None
    num_seeds: int


class SystemInfo(ResultsModel):
    """dtype: what a diffusers pipeline computed in. engine: what ran the parts for an NPU, the simulator or a board."""

    kind: SystemKind
    folder: FolderIdentity
    dtype: str | None
    engine: str | None = None


class RunIdentity(ResultsModel):
    """Results may be compared where all but the variants and the libraries is equal.

    prompts: the set's file, or nothing where pictures were paired without. metrics: version by name. pictures: the
    folder that the rows' files are relative to, an absolute path. device: the recipe's, `custom` without one.
    """

    reference: SystemInfo
    variants: dict[str, SystemInfo]
    ground_truth: FolderIdentity | None
    sampling: SamplingInfo
    prompt_set: str | None
    prompts_sha256: str
    metrics: dict[str, str]
    libraries: dict[str, str]
    device: str
    image_folder: str


class PromptSubset(ResultsModel):
    """prompts: of the whole set, of which only the first were compared. by: what said so."""

    total: int
    limited_by: str


class Results(ResultsModel):
    """created: UTC, ISO 8601. limited: None where the whole set was compared. seconds: wall time by stage
    (`painting`, `measuring`). costs: by metric.

    unmeasured: the reason by metric. floor: the reference against itself run again. verdict: None without gates;
    pairs that failed make it `not measured`.
    """

    schema_version: Literal[2] = 2
    created: str
    edgepress: str
    identity: RunIdentity
    stage_seconds: dict[str, FiniteFloat]
    metric_costs: dict[str, MetricCost]
    pair_scores: tuple[Score, ...]
    image_scores: tuple[Score, ...]
    unavailable_metrics: dict[str, str]
    reference_defects: tuple[DefectRecord, ...]
    variants: dict[str, VariantSummary]
    noise_floor: VariantSummary | None
    gates: tuple[GateResult, ...]
    strict: bool
    verdict: Verdict | None
    baseline: BaselineComparison | None
    history: tuple[HistoryPoint, ...] | None
    samples: tuple[SampleResult, ...]
    prompt_subset: PromptSubset | None = None


def save_results(results: Results, path: Path) -> None:
    """Written at once or not at all; never holds Infinity or NaN, which JSON does not know."""
    from ...storage.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(results.model_dump(mode="json"), path)


def load_results(path: Path) -> Results:
    """What `save_results` wrote.

    Raises:
        UserError: the file cannot be read, or another version of edgepress wrote it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); run `edgepress evaluate` first.") from error
    except ValueError as error:
        raise UserError(f"{path} is no results file: it is not JSON ({error}).") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is of schema {version}, and this edgepress reads {SCHEMA_VERSION}; evaluate again.")
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path} is no results file of schema {SCHEMA_VERSION} (see {where}).") from error
