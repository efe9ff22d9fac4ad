"""The schema of compare.json: what speaks for and against each candidate."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, FiniteFloat

from ..metrics.base import Score
from ..results.schema import GenerationCost, ResultsModel, SamplingInfo, SystemInfo
from ..stats.bootstrap import MeanCI

COMPARISON_VERSION: Final = 1


class ScoreEntry(ResultsModel):
    """A score of a candidate over all of its pairs."""

    mean: MeanCI = Field(description="Mean over the pairs, or over the candidate's images.")
    drop: MeanCI | None = Field(
        default=None, description="Of a score of single images: the mean paired loss; positive: the candidate is worse."
    )


class CandidateEntry(ResultsModel):
    """A candidate."""

    name: str = Field(description="Its name.")
    system: SystemInfo = Field(description="What it is, with its size.")
    num_pairs: int = Field(description="Number of prompts and seeds whose images were compared.")
    num_failures: int = Field(description="Number of those that could not be compared.")
    num_identical: int = Field(description="Number of images that equal the reference's in every pixel.")
    scores: dict[str, ScoreEntry] = Field(description="Scores by name, without those that were not measured.")
    gap: MeanCI | None = Field(
        description="Mean paired difference of PSNR to the candidate with the highest, in dB; null for that one, and "
        "where there is none."
    )
    cost: GenerationCost | None = Field(description="Seconds and memory of an image; null: not known.")
    on_front: bool = Field(description="Whether no other candidate is smaller and closer to the reference.")


class DeviceBudget(ResultsModel):
    """A version of a device, by its memory."""

    device: str = Field(description="The recipe.")
    memory: FiniteFloat = Field(description="Memory of this version in GiB.")
    usable_bytes: int = Field(description="What of it a program can use.")
    process_bytes: int = Field(description="What a process takes there besides weights and activations.")
    fits: dict[str, bool | None] = Field(
        description="By candidate, whether its peak memory and that of the process fit; null: the peak is not known."
    )
    choice: str | None = Field(
        description="The candidate to use: of those that fit, the smallest that cannot be distinguished from the one "
        "closest to the reference; null: none fits whose fidelity was measured."
    )


class CandidateComparison(ResultsModel):
    """The content of compare.json."""

    schema_version: Literal[1] = Field(default=COMPARISON_VERSION, description="Version of this schema.")
    created: str = Field(description="When the newest of the results was created, UTC, ISO 8601.")
    edgepress: str = Field(description="Version of edgepress.")
    results: tuple[str, ...] = Field(description="Digests that name the results: prompts, sampling, systems, metrics.")
    reference: SystemInfo = Field(description="The reference.")
    reference_cost: GenerationCost | None = Field(description="Seconds and memory of its images; null: not known.")
    sampling: SamplingInfo = Field(description="How the images were generated.")
    num_prompts: int = Field(description="Number of prompts.")
    score_list: tuple[Score, ...] = Field(description="The scores, in the order of display.")
    pair_scores: tuple[str, ...] = Field(description="The names of those that compare with the reference's image.")
    candidates: tuple[CandidateEntry, ...] = Field(description="The candidates, the closest to the reference first.")
    budgets: tuple[DeviceBudget, ...] = Field(description="The devices of the shipped recipes that state a memory.")
    answers: tuple[str, ...] = Field(description="What follows, in sentences.")

    def __str__(self) -> str:
        """The answers, one a line."""
        return "\n".join(self.answers)
