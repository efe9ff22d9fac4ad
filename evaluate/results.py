"""results.json: every number of an evaluation, and what it was measured on; all that is shown comes from this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ..errors import UserError
from ..prompts import Prompt
from .bootstrap import Mean
from .defects import Defect
from .identity import FolderIdentity
from .registry import Score

ALL = "all"  # the name of the group of all pictures
CUT = "cut"  # the note of a picture whose prompt was not read to its end
SCHEMA_VERSION = 2

Kind = Literal["diffusers", "onnx", "rknn", "images"]
Verdict = Literal["passed", "failed", "inconclusive", "not measured"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what was measured: the rows


class PictureRow(Part):
    """One picture: its file (relative to `Identity.pictures`, or absolute), its scores and the evidence for them."""

    file: str
    values: dict[str, FiniteFloat | None]
    notes: dict[str, tuple[str, ...]]
    defect: Defect | None


class VariantRow(Part):
    """A variant's picture and what it scores against the reference's (PSNR is None where they are identical).

    failure: why nothing was compared: `missing`, `unreadable` (which may go on to say why), `size WxH instead of WxH`,
    or what is wrong with the reference's: `reference missing`, `reference unreadable`, `reference black`, `reference
    flat` or `reference nan`. Such a row has no values and counts in no mean.
    """

    identical: bool
    values: dict[str, FiniteFloat | None]
    picture: PictureRow | None
    failure: str | None = None


class Row(Part):
    """One prompt and seed. truth: the true picture's file. floor: the reference run again."""

    prompt: Prompt
    seed: int
    truth: str | None
    reference: PictureRow | None
    variants: dict[str, VariantRow]
    floor: VariantRow | None = None


# ---------------------------------------------------------------- what the rows come to


class PairSummary(Part):
    """A pair score: its mean, and the pair where it is worst."""

    mean: Mean
    worst: FiniteFloat
    worst_prompt: str
    worst_seed: int


class PictureSummary(Part):
    """A picture score of the pairs where both pictures have it.

    drop: the mean paired loss, above 0 where the variant is worse. relative: the drop by the size of the reference's
    mean, as a fraction; None where that is 0.
    """

    reference: Mean
    variant: Mean
    drop: Mean
    relative: FiniteFloat | None


class Group(Part):
    """The pictures of all prompts, of a language, or of a category's value; scores measured on none are left out."""

    name: str
    pictures: int
    pairs: dict[str, PairSummary]
    scores: dict[str, PictureSummary]


class McNemar(Part):
    """Pairs where only one of the two pictures is right; p: exact, two-sided, that this is chance."""

    only_reference: int
    only_variant: int
    p: FiniteFloat


class Failed(Part):
    prompt: str
    seed: int
    failure: str


class Defective(Part):
    """A picture that shows nothing, or what another prompt's does. new: the reference's picture has no defect."""

    prompt: str
    seed: int
    defect: Defect
    new: bool


class Worst(Part):
    """A pair among the worst by a score: the value of a pair score, the drop of a picture score."""

    score: str
    prompt: str
    seed: int
    value: FiniteFloat


class VariantSummary(Part):
    """Computed from the rows alone; the first group is that of all pictures.

    pictures: pairs that were compared. detectable: by score, the smallest drop (of a pair score: distance of the mean)
    that so many prompts of such spread show with 80 % power at 5 %, two-sided.
    """

    pictures: int
    prompts: int
    identical: int
    failures: tuple[Failed, ...]
    defects: tuple[Defective, ...]
    groups: tuple[Group, ...]
    mcnemar: dict[str, McNemar]
    detectable: dict[str, FiniteFloat]
    worst: tuple[Worst, ...]


class Gate(Part):
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
    detectable: FiniteFloat | None


class Change(Part):
    """A score of a variant's pictures then and now, over the pairs measured both times; change: now - then, paired."""

    variant: str
    score: str
    before: FiniteFloat
    after: FiniteFloat
    change: Mean


class Baseline(Part):
    """Earlier results that these were compared with. only_then, only_now: variants that the other lacks."""

    path: str
    created: str
    edgepress: str
    changes: tuple[Change, ...]
    only_then: tuple[str, ...]
    only_now: tuple[str, ...]


class Point(Part):
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
    pictures: int


class Cost(Part):
    """What a metric cost this run: readings that were made, in CPU seconds, and those that were kept from earlier."""

    made: int
    kept: int
    seconds: FiniteFloat


# ---------------------------------------------------------------- what was compared


class SamplingIdentity(Part):
    """size, steps and guidance are None where only pictures made elsewhere were compared."""

    height: int | None
    width: int | None
    steps: int | None
    guidance: FiniteFloat | None
    seeds: int


class Subject(Part):
    """dtype: what a diffusers pipeline computed in. engine: what ran the parts for an NPU, the simulator or a board."""

    kind: Kind
    folder: FolderIdentity
    dtype: str | None
    engine: str | None = None


class Identity(Part):
    """Results may be compared where all but the variants and the libraries is equal.

    prompts: the set's file, or nothing where pictures were paired without. metrics: version by name. pictures: the
    folder that the rows' files are relative to, an absolute path. device: the recipe's, `custom` without one.
    """

    reference: Subject
    variants: dict[str, Subject]
    truth: FolderIdentity | None
    sampling: SamplingIdentity
    prompts: str | None
    prompts_sha256: str
    metrics: dict[str, str]
    libraries: dict[str, str]
    device: str
    pictures: str


class Limited(Part):
    """prompts: of the whole set, of which only the first were compared. by: what said so."""

    prompts: int
    by: str


class Results(Part):
    """created: UTC, ISO 8601. limited: None where the whole set was compared. seconds: wall time by stage
    (`painting`, `measuring`). costs: by metric.

    unmeasured: the reason by metric. floor: the reference against itself run again. verdict: None without gates;
    pairs that failed make it `not measured`.
    """

    schema_version: Literal[2] = 2
    created: str
    edgepress: str
    identity: Identity
    seconds: dict[str, FiniteFloat]
    costs: dict[str, Cost]
    pair_scores: tuple[Score, ...]
    picture_scores: tuple[Score, ...]
    unmeasured: dict[str, str]
    reference_defects: tuple[Defective, ...]
    variants: dict[str, VariantSummary]
    floor: VariantSummary | None
    gates: tuple[Gate, ...]
    strict: bool
    verdict: Verdict | None
    baseline: Baseline | None
    history: tuple[Point, ...] | None
    rows: tuple[Row, ...]
    limited: Limited | None = None


def save_results(results: Results, path: Path) -> None:
    """Written at once or not at all; never holds Infinity or NaN, which JSON does not know."""
    from ..checkpoint import write_json

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
