"""Results of two variants on the demo's ground-truth signs, with everything that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from edgepress.evaluate.backends.text_matching import score_text
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics import psnr, text
from edgepress.evaluate.metrics.base import MetricSettings, Score
from edgepress.evaluate.results.aggregate import VariantPair, aggregate
from edgepress.evaluate.results.gates import evaluate_gates, overall_verdict, resolve_gates
from edgepress.evaluate.results.schema import (
    BaselineComparison,
    HistoryPoint,
    ImageResult,
    PairResult,
    Results,
    SampleResult,
    ScoreChange,
)
from edgepress.evaluate.stats.bootstrap import MeanCI
from edgepress.prompts.prompt import Prompt
from helpers.result_rows import PSNR, make_identity, make_results

HOSTILE = (
    "</script><img src=http://evil.test/x onerror=alert(1)> \u202egnp.exe | `code` & \"quotes\" 'too' @everyone \x07"
)
RTL = "لافتة حمراء: مفتوح"
SEEDS = 4
VARIANTS = ("int4", "int8")
MISREAD = {"FRESH": "FRASH"}  # in the images of the variant int4


def make_report_results(signs: Sequence[tuple[Prompt, Path]], folder: Path) -> Results:
    """Of every sign, `SEEDS` seeds: int4 is darker, int8 nearly the reference; six of int4's images are damaged."""
    prompts = [_make_hostile(prompt, number) for number, (prompt, _) in enumerate(signs)]
    files = [file for _, file in signs]
    samples = [
        _make_sample(prompt, seed, file, folder)
        for seed in range(SEEDS)
        for prompt, file in zip(prompts, files, strict=True)
    ]
    results = make_results(samples, (PSNR,), text.SCORES)
    repeats = [
        VariantPair(sample, PairResult(identical=True, values={"psnr": None}, image=sample.reference))
        for sample in samples
    ]
    metrics = [psnr.create_metric(MetricSettings()), text.create_metric(MetricSettings())]
    specs = resolve_gates({"psnr_min": 36.0, "text_accuracy_drop": 2.0, "exact_drop": "30%"}, metrics, False)
    specs += resolve_gates({"psnr_drop": 1.0}, metrics, has_ground_truth=False)[1:]
    gates = tuple(gate for name, summary in results.variants.items() for gate in evaluate_gates(name, summary, specs))
    system = results.identity.reference
    return results.model_copy(
        update={
            "identity": make_identity(variants=dict.fromkeys(VARIANTS, system), image_folder=str(folder)),
            "noise_floor": aggregate(repeats, (PSNR,), text.SCORES),
            "gates": gates,
            "verdict": overall_verdict(gates, results.variants.values()),
            "unavailable_metrics": {"lpips": "no weights were given"},
            "history": _make_history(),
            "baseline": BaselineComparison(
                path="baseline/results.json",
                created="2026-11-01T00:00:00+00:00",
                edgepress="0.0.9",
                changes=(ScoreChange(variant="int4", score="psnr", baseline=30, current=31, change=_make_mean(1)),),
                only_baseline=("old",),
                only_current=(),
            ),
        }
    )


def _make_hostile(prompt: Prompt, number: int) -> Prompt:
    """The first two prompts hold what must not become markup."""
    changes: dict[int, dict[str, object]] = {
        0: {"prompt": HOSTILE, "categories": {"kind": "a|b </td>"}},
        1: {"prompt": RTL, "id": "x\u202e<b>|`y"},
    }
    return prompt.model_copy(update=changes.get(number, {}))


def _make_sample(prompt: Prompt, seed: int, file: Path, folder: Path) -> SampleResult:
    reference = load_image(file)
    return SampleResult(
        prompt=prompt,
        seed=seed,
        ground_truth=None,
        reference=_save_image(reference, prompt, seed, "reference", folder),
        variants={name: _make_pair(name, reference, prompt, seed, folder) for name in VARIANTS},
    )


def _make_pair(name: str, reference: ImageArray, prompt: Prompt, seed: int, folder: Path) -> PairResult:
    damage = {1: "black", 2: "missing", 3: "size"}.get(seed) if name == "int4" and prompt.language == "zh" else None
    if damage == "missing":
        return PairResult(identical=False, values={}, image=None, failure="missing")
    if damage == "size":
        return PairResult(identical=False, values={}, image=None, failure="size 64x128 instead of 128x128")
    if damage == "black":
        variant = np.zeros_like(reference)
    elif name == "int8" and seed == 0:
        variant = reference
    else:
        darker = 1 if name == "int8" else 4 + 3 * seed + len(prompt.lines)
        variant = np.clip(reference.astype(int) - darker, 0, 255).astype(np.uint8)
    identical = np.array_equal(variant, reference)
    value = None if identical else float(peak_signal_noise_ratio(reference, variant, data_range=255))
    image = _save_image(variant, prompt, seed, name, folder)
    if damage:
        image = image.model_copy(update={"defect": "black"})
    return PairResult(identical=identical, values={"psnr": value}, image=image)


def _save_image(image: ImageArray, prompt: Prompt, seed: int, name: str, folder: Path) -> ImageResult:
    file = f"{name}-{prompt.lines[0]}-{seed}.png"
    Image.fromarray(image).save(folder / file)
    lines = [MISREAD.get(line, line) for line in prompt.lines] if name == "int4" and seed < 3 else list(prompt.lines)
    lines = lines if image.any() else []
    return ImageResult(
        file=file,
        values=score_text(prompt.lines, lines, prompt.language),
        notes={"read": tuple(lines)},
        defect=None,
    )


def _make_history() -> tuple[HistoryPoint, ...]:
    """Three runs of both variants."""
    return tuple(
        HistoryPoint(
            created=f"2026-11-{day:02d}T00:00:00+00:00",
            edgepress="0.1.0",
            variant=name,
            score=score,
            kind=kind,
            value=value + day / 10,
            low=value,
            high=value + 2,
            num_pairs=30,
        )
        for day in (1, 2, 20)
        for name in VARIANTS
        for score, kind, value in (("psnr", "mean", 30.0), ("exact", "drop", 0.1))
    )


def _make_mean(value: float) -> MeanCI:
    return MeanCI(mean=value, low=value - 0.5, high=value + 0.5, count=32)


def make_many_results(num_prompts: int, num_variants: int) -> Results:
    """As many samples as a large run has, with long and hostile names, and without images."""
    scores = [Score(name=f"s{i}", title=f"score {i}") for i in range(3)]
    names = [f"variant {i} {HOSTILE}" for i in range(num_variants)]
    samples = [
        SampleResult(
            prompt=Prompt(
                id=f"{i} {HOSTILE}", prompt=HOSTILE, language="en", categories={"kind": f"{i % 8} {HOSTILE}"}
            ),
            seed=0,
            ground_truth=None,
            reference=None,
            variants={name: _make_plain_pair(i, scores) for name in names},
        )
        for i in range(num_prompts)
    ]
    return make_results(samples, scores, (), verdict="not measured")


def _make_plain_pair(number: int, scores: Sequence[Score]) -> PairResult:
    if number % 2:
        return PairResult(identical=False, values={}, image=None, failure="missing")
    return PairResult(identical=False, values={score.name: number / 7 for score in scores}, image=None)
