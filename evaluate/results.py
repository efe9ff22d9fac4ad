"""results.json: every number of an evaluation, and what it was measured on; all that is shown comes from this file."""

from __future__ import annotations

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


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PictureRow(Part):
    """One picture: its file in the picture cache, its scores, the evidence for them, and whether it shows nothing."""

    file: str
    values: dict[str, FiniteFloat | None]
    notes: dict[str, tuple[str, ...]]
    defect: Defect | None


class Row(Part):
    """One prompt and seed; `values` compares the two pictures (PSNR is None where they are identical)."""

    prompt: Prompt
    seed: int
    identical: bool
    values: dict[str, FiniteFloat | None]
    reference: PictureRow
    variant: PictureRow


class PairSummary(Part):
    """A pair score: its mean, and the pair where it is worst."""

    mean: Mean
    worst: FiniteFloat
    worst_prompt: str
    worst_seed: int


class PictureSummary(Part):
    """A picture score; `drop` is the mean paired loss, above 0 where the variant is worse."""

    reference: Mean
    variant: Mean
    drop: Mean


class Group(Part):
    """The pictures of all prompts, of a language, or of a category's value; scores measured on none are left out."""

    name: str
    pictures: int
    pairs: dict[str, PairSummary]
    scores: dict[str, PictureSummary]


class Summary(Part):
    """Computed from the rows alone; the first group is that of all pictures."""

    pictures: int
    prompts: int
    identical: int
    reference_defects: dict[Defect, int]
    variant_defects: dict[Defect, int]
    groups: tuple[Group, ...]


class SamplingIdentity(Part):
    height: int
    width: int
    steps: int
    guidance: FiniteFloat
    seeds: int


class Identity(Part):
    """Results may be compared where all but the candidate is equal."""

    reference: FolderIdentity
    candidate: FolderIdentity
    sampling: SamplingIdentity
    dtype: str
    prompts_sha256: str
    metrics: dict[str, str]
    libraries: dict[str, str]


class Results(Part):
    schema_version: Literal[1] = 1
    identity: Identity
    pair_scores: tuple[Score, ...]
    picture_scores: tuple[Score, ...]
    summary: Summary
    rows: tuple[Row, ...]


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
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); run `edgepress evaluate` first.") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path} is no results file of schema 1 (see {where or 'its start'}).") from error
