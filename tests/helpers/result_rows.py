"""Hand-made samples and results of an evaluation."""

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


def make_image(text: float | None, defect: str | None = None) -> ImageResult:
    exact = None if text is None else float(text == 1)
    return ImageResult.model_validate(
        {
            "file": "x/0.png",
            "values": {"text_accuracy": text, "exact": exact},
            "notes": {"read": ["A"]},
            "defect": defect,
        }
    )


def make_pair(psnr: float | None, text: float | None = 1, flip: float = 0, defect: str | None = None) -> PairResult:
    return PairResult(identical=psnr is None, values={"psnr": psnr, "flip": flip}, image=make_image(text, defect))


def make_failed_pair(failure: str = "missing") -> PairResult:
    return PairResult(identical=False, values={}, image=None, failure=failure)


def make_sample(
    prompt: Prompt,
    psnr: float | None,
    texts: tuple[float | None, float | None] = (1, 1),
    flip: float = 0,
    seed: int = 0,
) -> SampleResult:
    """A sample with one variant; `texts` are the text scores of the reference and of the variant."""
    return make_sample_with(prompt, make_pair(psnr, texts[1], flip), texts[0], seed)


def make_sample_with(
    prompt: Prompt, pair: PairResult, text: float | None = 1, seed: int = 0, defect: str | None = None
) -> SampleResult:
    """A sample with a given pair; `text` and `defect` are those of the reference."""
    reference = make_image(text, defect)
    return SampleResult(prompt=prompt, seed=seed, ground_truth=None, reference=reference, variants={VARIANT: pair})


def truncate_prompt(sample: SampleResult, notice: str) -> SampleResult:
    """The sample with a variant whose prompt was truncated."""
    pair = sample.variants[VARIANT]
    assert pair.image
    image = pair.image.model_copy(update={"notes": pair.image.notes | {TRUNCATED: (notice,)}})
    return sample.model_copy(update={"variants": {VARIANT: pair.model_copy(update={"image": image})}})


def make_identity(**changes: object) -> RunIdentity:
    system = SystemInfo(
        kind="diffusers", folder=FolderIdentity(path="model", sha256="0" * 64, files=1, bytes=1), dtype="float32"
    )
    return RunIdentity(
        reference=system,
        variants={VARIANT: system},
        ground_truth=None,
        sampling=SamplingInfo(height=64, width=96, steps=2, guidance=0.0, num_seeds=1),
        prompt_set="set.jsonl",
        prompts_sha256="0" * 64,
        metrics={"psnr": "1", "flip": "1", "text": "1"},
        libraries={"torch": "2"},
        device="orin",
        image_folder="/images",
    ).model_copy(update=changes)


def make_results(
    samples: Sequence[SampleResult],
    pair_scores: Sequence[Score] = (PSNR, FLIP),
    image_scores: Sequence[Score] = (TEXT, EXACT),
    **changes: object,
) -> Results:
    """What an evaluation with these samples would have written."""
    names = list(samples[0].variants) if samples else [VARIANT]
    return Results(
        created="2026-11-21T12:00:00+00:00",
        edgepress="0.1.0",
        identity=make_identity(),
        stage_seconds={"generating": 1.0},
        metric_costs={},
        pair_scores=tuple(pair_scores),
        image_scores=tuple(image_scores),
        unavailable_metrics={},
        reference_defects=find_reference_defects(samples),
        variants={name: aggregate(select_variant(samples, name), pair_scores, image_scores) for name in names},
        noise_floor=None,
        gates=(),
        strict=False,
        verdict=None,
        baseline=None,
        history=None,
        samples=tuple(samples),
    ).model_copy(update=changes)
