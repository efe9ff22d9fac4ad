"""Rows and results made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.results.aggregate import aggregate, find_reference_defects, select_variant
from edgepress.evaluate.results.folder_identity import FolderIdentity
from edgepress.evaluate.results.schema import (
    TRUNCATED,
    ImageResult,
    PairResult,
    Results,
    RunIdentity,
    SampleResult,
    SamplingInfo,
    SystemInfo,
)
from edgepress.prompts.prompt import Prompt

PSNR = Score(name="psnr", title="PSNR", unit="dB")
FLIP = Score(name="flip", title="FLIP", higher_is_better=False)
TEXT = Score(name="text_accuracy", title="text accuracy", unit="%")
EXACT = Score(name="exact", title="exact text", unit="%", binary=True)
VARIANT = "int4"


def make_prompt(name: str, language: str = "en", **categories: str) -> Prompt:
    return Prompt.model_validate({"id": name, "prompt": name, "language": language, "categories": categories})


def image_result(text: float | None, defect: str | None = None) -> ImageResult:
    exact = None if text is None else float(text == 1)
    return ImageResult.model_validate(
        {
            "file": "x/0.png",
            "values": {"text_accuracy": text, "exact": exact},
            "notes": {"read": ["A"]},
            "defect": defect,
        }
    )


def pair_result(psnr: float | None, text: float | None = 1, flip: float = 0, defect: str | None = None) -> PairResult:
    return PairResult(identical=psnr is None, values={"psnr": psnr, "flip": flip}, image=image_result(text, defect))


def failed_pair(failure: str = "missing") -> PairResult:
    return PairResult(identical=False, values={}, image=None, failure=failure)


def sample_result(
    asked: Prompt, psnr: float | None, texts: tuple[float | None, float | None] = (1, 1), flip: float = 0, seed: int = 0
) -> SampleResult:
    """One variant's row; the scores of text are those of the reference and of the variant."""
    return sample_with(asked, pair_result(psnr, texts[1], flip), texts[0], seed)


def sample_with(
    asked: Prompt, made: PairResult, text: float | None = 1, seed: int = 0, defect: str | None = None
) -> SampleResult:
    return SampleResult(
        prompt=asked, seed=seed, ground_truth=None, reference=image_result(text, defect), variants={VARIANT: made}
    )


def truncate_prompt(made: SampleResult, said: str) -> SampleResult:
    """The row with a variant's picture whose prompt was cut."""
    one = made.variants[VARIANT]
    assert one.image
    shorter = one.image.model_copy(update={"notes": one.image.notes | {TRUNCATED: (said,)}})
    return made.model_copy(update={"variants": {VARIANT: one.model_copy(update={"picture": shorter})}})


def make_identity(**changed: object) -> RunIdentity:
    subject = SystemInfo(
        kind="diffusers", folder=FolderIdentity(path="model", sha256="0" * 64, files=1, bytes=1), dtype="float32"
    )
    return RunIdentity(
        reference=subject,
        variants={VARIANT: subject},
        ground_truth=None,
        sampling=SamplingInfo(height=64, width=96, steps=2, guidance=0.0, num_seeds=1),
        prompt_set="set.jsonl",
        prompts_sha256="0" * 64,
        metrics={"psnr": "1", "flip": "1", "text": "1"},
        libraries={"torch": "2"},
        device="orin",
        image_folder="pictures",
    ).model_copy(update=changed)


def make_results(
    rows: Sequence[SampleResult],
    pair_scores: Sequence[Score] = (PSNR, FLIP),
    picture_scores: Sequence[Score] = (TEXT, EXACT),
    **changed: object,
) -> Results:
    """What an evaluation of these rows would have written."""
    names = list(rows[0].variants) if rows else [VARIANT]
    return Results(
        created="2026-11-21T12:00:00+00:00",
        edgepress="0.1.0",
        identity=make_identity(),
        stage_seconds={"painting": 1.0},
        metric_costs={},
        pair_scores=tuple(pair_scores),
        image_scores=tuple(picture_scores),
        unavailable_metrics={},
        reference_defects=find_reference_defects(rows),
        variants={name: aggregate(select_variant(rows, name), pair_scores, picture_scores) for name in names},
        noise_floor=None,
        gates=(),
        strict=False,
        verdict=None,
        baseline=None,
        history=None,
        samples=tuple(rows),
    ).model_copy(update=changed)
