"""The schema of results.json: every number of an evaluation and what it was measured on."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from ...prompts.prompt import Prompt
from ...storage.relative_path import PossiblePath
from ..images.defects import Defect
from ..metrics.base import Score
from ..stats.bootstrap import MeanCI
from ..stats.mcnemar import McNemarResult
from .folder_identity import FolderIdentity
from .ranges import MeanDuration, NonNegative, check_fractions

ALL_GROUP = "all"  # the name of the group of all pairs
TRUNCATED = "truncated"  # the note on an image whose prompt was truncated
READ, REMARKS = "read", "remarks"  # notes on an image: the text that was read, and what is wrong with it
SCHEMA_VERSION: Final = 3

SystemKind = Literal["diffusers", "optimum", "onnx", "rknn", "images", "server"]
Verdict = Literal["passed", "failed", "inconclusive", "not measured"]
SampleKey = tuple[str, int]  # prompt id and seed


class ResultsModel(BaseModel):
    """Base of all objects of results.json: immutable, unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- samples: what was measured


class ImageResult(ResultsModel):
    """One image with its scores."""

    file: PossiblePath = Field(description="Path of the image, relative to `identity.image_folder`.")
    values: dict[str, FiniteFloat | None] = Field(description="Image scores by name; null: could not be measured.")
    notes: dict[str, tuple[str, ...]] = Field(
        description="Evidence for the scores: the lines that OCR read and that count (`read`); all text that it read "
        "(`boxes`: size and place in pixels, angle, confidence, text); what is wrong with text that the prompt asks "
        "for (`remarks`: the reason, and the text after a colon); why a score is null (under the score's name); which "
        "part of the prompt was truncated (`truncated`)."
    )
    defect: Defect | None = Field(description="What is wrong with the image, such as `black`; null: nothing.")


class PairResult(ResultsModel):
    """A variant's image compared with the reference's image."""

    identical: bool = Field(description="Whether both images are equal in every pixel.")
    values: dict[str, FiniteFloat | None] = Field(
        description="Pair scores by name; null: undefined, such as the PSNR of identical images. Empty after a "
        "failure, and if the variant made its own noise."
    )
    image: ImageResult | None = Field(description="The variant's image; null: it is missing or unreadable.")
    failure: str | None = Field(
        default=None,
        description="Why the images were not compared: `missing`, `unreadable` or `not generated` (with a reason, if "
        "known), `size WxH instead of WxH`, or one of `reference missing`, `reference unreadable`, `reference not "
        "generated`, `reference black`, `reference flat`, `reference nan`. Such a pair counts in no mean.",
    )
    notes: dict[str, tuple[str, ...]] = Field(
        default={}, description="Under the name of a pair score: why it could not be measured for these images."
    )


class SampleResult(ResultsModel):
    """All images of one prompt and seed."""

    prompt: Prompt = Field(description="The prompt.")
    seed: NonNegativeInt = Field(description="The seed, from 0.")
    ground_truth: PossiblePath | None = Field(description="Path of the ground-truth image, if there is one.")
    reference: ImageResult | None = Field(description="The reference's image; null: it is missing or unreadable.")
    variants: dict[str, PairResult] = Field(description="The comparison with the reference, by variant.")
    noise_floor: PairResult | None = Field(
        default=None, description="The reference run a second time, compared with its first run."
    )


# ---------------------------------------------------------------- aggregates


class PairScoreSummary(ResultsModel):
    """A pair score over the pairs of a group."""

    mean: MeanCI = Field(description="Mean over the pairs.")
    worst: FiniteFloat = Field(description="Value of the worst pair.")
    worst_prompt: str = Field(description="Prompt id of the worst pair.")
    worst_seed: NonNegativeInt = Field(description="Seed of the worst pair.")


class ImageScoreSummary(ResultsModel):
    """An image score over the pairs of a group of which both images have it."""

    reference: MeanCI = Field(description="Mean over the reference's images.")
    variant: MeanCI = Field(description="Mean over the variant's images.")
    drop: MeanCI = Field(description="Mean paired loss; positive: the variant is worse.")
    relative_drop: FiniteFloat | None = Field(
        description="The drop as a fraction of the reference's mean; null: that mean is 0."
    )


class ScoreGroup(ResultsModel):
    """Aggregates of a group of pairs: all, those of one language, or those of one value of a category."""

    name: str = Field(description="`all`, `language: <language>`, or `<category>: <value>`.")
    num_pairs: NonNegativeInt = Field(description="Number of compared pairs.")
    pair_scores: dict[str, PairScoreSummary] = Field(description="Pair scores by name, without those never measured.")
    image_scores: dict[str, ImageScoreSummary] = Field(
        description="Image scores by name, without those never measured."
    )


class FailedPair(ResultsModel):
    """A pair that was not compared."""

    prompt: str = Field(description="Prompt id.")
    seed: NonNegativeInt = Field(description="Seed.")
    failure: str = Field(description="The reason; see `PairResult.failure`.")


class DefectRecord(ResultsModel):
    """An image that is defective, such as black or a duplicate of another prompt's image."""

    prompt: str = Field(description="Prompt id.")
    seed: NonNegativeInt = Field(description="Seed.")
    defect: Defect = Field(description="What is wrong with the image.")
    new: bool = Field(description="Whether the reference's image of this prompt and seed has no defect.")


class WorstPair(ResultsModel):
    """One of the worst pairs by a score."""

    score: str = Field(description="Name of the score.")
    prompt: str = Field(description="Prompt id.")
    seed: NonNegativeInt = Field(description="Seed.")
    value: FiniteFloat = Field(description="Value of a pair score, or drop of an image score.")


class VariantSummary(ResultsModel):
    """Aggregates of one variant, computed from the samples alone."""

    num_pairs: NonNegativeInt = Field(description="Number of compared pairs.")
    num_prompts: NonNegativeInt = Field(description="Number of prompts of the compared pairs.")
    num_identical: NonNegativeInt = Field(description="Number of pairs whose images are equal in every pixel.")
    failures: tuple[FailedPair, ...] = Field(description="Pairs that were not compared.")
    defects: tuple[DefectRecord, ...] = Field(description="Defective images of the variant.")
    groups: tuple[ScoreGroup, ...] = Field(
        description="Aggregates by group: all pairs first, then languages, then categories."
    )
    mcnemar: dict[str, McNemarResult] = Field(description="McNemar's test of each binary score.")
    minimum_detectable_effect: dict[str, NonNegative] = Field(
        description="By score, the smallest drop (pair scores: change of the mean) that this number of prompts with "
        "this spread detects with 80% power at a significance level of 5%, two-sided."
    )
    worst_pairs: tuple[WorstPair, ...] = Field(description="The worst pairs by each score, worst first.")


class GateResult(ResultsModel):
    """A gate of the recipe and the verdict of one variant.

    `limit`, `value`, `low`, `high` and `minimum_detectable_effect` have the unit in which the score is stored
    (fractions for `%`). They are fractions of the reference's mean if `relative`, and numbers of images for
    `defects_max`.
    """

    variant: str = Field(description="Name of the variant.")
    name: str = Field(description="Name of the gate, such as `psnr_min`.")
    score: str = Field(description="Name of the score that the gate checks.")
    limit: FiniteFloat = Field(description="The limit that the recipe sets.")
    relative: bool = Field(description="Whether the limit is a fraction of the reference's mean.")
    value: FiniteFloat | None = Field(description="The measured mean or drop; null: not measured.")
    low: FiniteFloat | None = Field(description="Lower end of the 95% confidence interval.")
    high: FiniteFloat | None = Field(description="Upper end of the 95% confidence interval.")
    verdict: Verdict = Field(description="Whether the gate passed.")
    reason: str = Field(description="Explanation of the verdict, or empty.")
    minimum_detectable_effect: NonNegative | None = Field(description="See `VariantSummary`.")


class ScoreChange(ResultsModel):
    """A score of a variant in the baseline and in this run, over the pairs that both measured."""

    variant: str = Field(description="Name of the variant.")
    score: str = Field(description="Name of the score.")
    baseline: FiniteFloat = Field(description="Mean in the baseline.")
    current: FiniteFloat = Field(description="Mean in this run.")
    change: MeanCI = Field(description="Mean paired difference, current minus baseline.")


class BaselineComparison(ResultsModel):
    """Comparison with the results of an earlier run."""

    path: str = Field(description="Path of the baseline's results.json.")
    created: str = Field(description="When the baseline was created, UTC, ISO 8601.")
    edgepress: str = Field(description="Version of edgepress that created the baseline.")
    changes: tuple[ScoreChange, ...] = Field(description="Changes by variant and score.")
    only_baseline: tuple[str, ...] = Field(description="Variants that only the baseline has.")
    only_current: tuple[str, ...] = Field(description="Variants that only this run has.")


class HistoryPoint(ResultsModel):
    """One score of one variant in one run of the history; this run is included."""

    created: str = Field(description="When the run was created, UTC, ISO 8601.")
    edgepress: str = Field(description="Version of edgepress.")
    variant: str = Field(description="Name of the variant.")
    score: str = Field(description="Name of the score.")
    kind: Literal["mean", "drop"] = Field(description="The mean of a pair score, or the drop of an image score.")
    value: FiniteFloat = Field(description="The mean or drop.")
    low: FiniteFloat | None = Field(description="Lower end of the 95% confidence interval.")
    high: FiniteFloat | None = Field(description="Upper end of the 95% confidence interval.")
    num_pairs: NonNegativeInt = Field(description="Number of pairs.")


class MetricCost(ResultsModel):
    """What one metric cost in this run."""

    computed: NonNegativeInt = Field(description="Number of results computed in this run.")
    cached: NonNegativeInt = Field(description="Number of results taken from the cache.")
    cpu_seconds: NonNegative = Field(description="CPU time of the computed results, in seconds.")


# ---------------------------------------------------------------- identity: what was compared


class SamplingInfo(ResultsModel):
    """How the images were generated; all but `num_seeds` are null if only existing images were compared."""

    height: PositiveInt | None = Field(description="Image height in pixels.")
    width: PositiveInt | None = Field(description="Image width in pixels.")
    steps: PositiveInt | None = Field(description="Number of denoising steps.")
    guidance: NonNegative | None = Field(description="Guidance scale.")
    negative_prompt: str = Field(default="", description="What guidance leads away from, unless a prompt says it.")
    num_seeds: PositiveInt = Field(description="Number of images per prompt.")


class SystemInfo(ResultsModel):
    """The reference or a variant: a pipeline, exported graphs, a folder of images, or a server."""

    kind: SystemKind = Field(description="What it is.")
    folder: FolderIdentity = Field(
        description="The folder and its digest. Of single files that replace components: these files, with a digest of "
        "the reference's pipeline as well. Of a server: its address, and a digest of what it says of itself."
    )
    dtype: str | None = Field(description="Compute dtype of a diffusers pipeline.")
    engine: str | None = Field(
        default=None, description="What ran the RKNN parts: the simulator or a board. Of a server: what it says."
    )
    loras: tuple[str, ...] = Field(
        default=(), description="Names and weights of LoRAs that are merged into the weights."
    )
    formats: dict[str, str] = Field(
        default={},
        description="By component: the method that its weights are quantized with, or the kind of single file that "
        "replaces it.",
    )
    weight_bytes: NonNegativeInt | None = Field(
        default=None, description="Size in bytes of all weights that it needs to generate images; null: not known."
    )
    num_weights: NonNegativeInt | None = Field(
        default=None, description="Number of weights of the reference; null: not known."
    )
    bits_per_weight: NonNegative | None = Field(
        default=None, description="`weight_bytes` in bits for each weight of the reference; null: not known."
    )
    own_noise: str | None = Field(
        default=None,
        description="Why its images are not of the reference's noise, so that they are not compared in pairs: pair "
        "scores are null. Null: they are of the same noise.",
    )


class GenerationCost(ResultsModel):
    """What generating the images of the reference or a variant cost, on the machine and with the load of that run."""

    seconds: MeanDuration = Field(
        description="Wall time of an image in seconds, without loading; images of a batch count alike. The interval is "
        "bootstrapped over batches. The first batch, which warms up, counts only if it is the only one."
    )
    batch_size: PositiveInt = Field(description="Number of images that were generated together.")
    peak_memory: NonNegativeInt | None = Field(
        description="Bytes of memory that it added to the process at its peak, from before it was loaded. Of a server: "
        "the largest memory of its whole process, read after each image. Null: not known."
    )
    whole_process: bool = Field(default=False, description="Whether `peak_memory` is that of a whole process.")


class RunIdentity(ResultsModel):
    """What was compared. Runs are comparable if everything but the variants and the libraries is equal."""

    reference: SystemInfo = Field(description="The reference.")
    variants: dict[str, SystemInfo] = Field(description="The variants by name.")
    ground_truth: FolderIdentity | None = Field(description="The folder of ground-truth images, if any.")
    sampling: SamplingInfo = Field(description="How the images were generated.")
    prompt_set: str | None = Field(
        description="The prompt set, named like folders; null: images were paired without one."
    )
    prompts_sha256: str = Field(description="Digest of the prompts.")
    metrics: dict[str, str] = Field(description="Version of each metric.")
    libraries: dict[str, str] = Field(description="Version of each library.")
    device: str = Field(description="Device of the recipe; `custom` without a recipe.")
    image_folder: PossiblePath = Field(
        description="The folder that paths of images begin at; its own path begins at the folder of results.json."
    )


class PromptSubset(ResultsModel):
    """Present if only the first prompts of the set were used."""

    total: PositiveInt = Field(description="Number of prompts of the whole set.")
    limited_by: str = Field(description="The option or recipe key that set the limit.")


class Results(ResultsModel):
    """The content of results.json."""

    schema_version: Literal[3] = Field(default=SCHEMA_VERSION, description="Version of this schema.")
    created: str = Field(description="When the run was created, UTC, ISO 8601.")
    edgepress: str = Field(description="Version of edgepress.")
    identity: RunIdentity = Field(description="What was compared.")
    stage_seconds: dict[str, NonNegative] = Field(description="Wall time of each stage, in seconds.")
    metric_costs: dict[str, MetricCost] = Field(description="What each metric cost.")
    pair_scores: tuple[Score, ...] = Field(description="Scores that compare a variant's image with the reference's.")
    image_scores: tuple[Score, ...] = Field(description="Scores of a single image.")
    unavailable_metrics: dict[str, str] = Field(description="Metrics that could not be measured, with the reason.")
    reference_defects: tuple[DefectRecord, ...] = Field(description="Defective images of the reference.")
    variants: dict[str, VariantSummary] = Field(description="Aggregates by variant.")
    costs: dict[str, GenerationCost] = Field(
        default={},
        description="Cost of generating images by variant, without those that are not known: of existing images, and "
        "of images that an earlier release generated.",
    )
    reference_cost: GenerationCost | None = Field(default=None, description="The same of the reference.")
    noise_floor: VariantSummary | None = Field(
        description="Aggregates of the reference's second run; null: it was not measured."
    )
    gates: tuple[GateResult, ...] = Field(description="Gates of all variants.")
    strict: bool = Field(description="Whether an inconclusive verdict counts as a failure.")
    verdict: Verdict | None = Field(
        description="The worst verdict of all gates; `not measured` if a pair failed; null without gates and failures."
    )
    baseline: BaselineComparison | None = Field(description="Comparison with an earlier run, if requested.")
    history: tuple[HistoryPoint, ...] | None = Field(description="Scores of comparable runs, if requested.")
    samples: tuple[SampleResult, ...] = Field(description="The measurements: one entry per prompt and seed.")
    prompt_subset: PromptSubset | None = Field(default=None, description="Null if the whole prompt set was used.")

    @model_validator(mode="after")
    def _check_references(self) -> Results:
        """Refuses results whose parts do not belong together, as after a file was edited or damaged."""
        samples = {(sample.prompt.id, sample.seed) for sample in self.samples}
        scores = {score.name for score in (*self.pair_scores, *self.image_scores)}
        if len(samples) < len(self.samples):
            raise ValueError("a prompt and seed has two samples")
        if any(name not in sample.variants for sample in self.samples for name in self.variants):
            raise ValueError("a sample lacks a variant")
        for summary in (*self.variants.values(), *([self.noise_floor] if self.noise_floor else [])):
            if not summary.groups or summary.groups[0].name != ALL_GROUP:
                raise ValueError(f"the first group of a variant is not {ALL_GROUP!r}")
            entries: list[FailedPair | DefectRecord | WorstPair] = [*summary.failures, *summary.defects]
            entries += summary.worst_pairs
            if not samples.issuperset((entry.prompt, entry.seed) for entry in entries):
                raise ValueError("a variant names a prompt and seed without a sample")
            if not scores.issuperset([*summary.mcnemar, *(worst.score for worst in summary.worst_pairs)]):
                raise ValueError("a variant names an unknown score")
        pairs = [pair for sample in self.samples for pair in (*sample.variants.values(), sample.noise_floor) if pair]
        images = [sample.reference for sample in self.samples] + [pair.image for pair in pairs]
        rows = [*(pair.values for pair in pairs), *(image.values for image in images if image)]
        check_fractions((*self.pair_scores, *self.image_scores), rows)
        return self

    def __str__(self) -> str:
        """Returns a short summary: the mean of every score with its 95% interval, and the verdict."""
        from ..report.descriptions import summarize_results

        return summarize_results(self)
