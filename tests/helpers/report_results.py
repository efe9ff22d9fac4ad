"""Results of two variants on the demo's true signs, with everything that a report must show."""

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
MISREAD = {"FRESH": "FRASH"}  # what is read of the variant int4


def make_report_results(signs: Sequence[tuple[Prompt, Path]], folder: Path) -> Results:
    """Of every sign, `SEEDS` seeds: int4 is darker, int8 nearly the reference; six of int4's pictures are damaged."""
    asked = [_renamed(prompt, number) for number, (prompt, _) in enumerate(signs)]
    files = [file for _, file in signs]
    rows = [
        _row(prompt, seed, file, folder) for seed in range(SEEDS) for prompt, file in zip(asked, files, strict=True)
    ]
    found = make_results(rows, (PSNR,), text.SCORES)
    subject = found.identity.reference
    again = [VariantPair(row, PairResult(identical=True, values={"psnr": None}, image=row.reference)) for row in rows]
    metrics = [psnr.create_metric(MetricSettings()), text.create_metric(MetricSettings())]
    limits = resolve_gates(
        {"psnr_min": 36.0, "text_accuracy_drop": 2.0, "exact_drop": "30%"}, metrics, has_ground_truth=False
    )
    limits += resolve_gates({"psnr_drop": 1.0}, metrics, has_ground_truth=False)[1:]
    gates = tuple(gate for name, summary in found.variants.items() for gate in evaluate_gates(name, summary, limits))
    return found.model_copy(
        update={
            "identity": make_identity(variants=dict.fromkeys(VARIANTS, subject), pictures=str(folder)),
            "floor": aggregate(again, (PSNR,), text.SCORES),
            "gates": gates,
            "verdict": overall_verdict(gates, found.variants.values()),
            "unmeasured": {"lpips": "no weights were given"},
            "history": _history(),
            "baseline": BaselineComparison(
                path="then/results.json",
                created="2026-11-01T00:00:00+00:00",
                edgepress="0.0.9",
                changes=(ScoreChange(variant="int4", score="psnr", baseline=30, current=31, change=_mean(1)),),
                only_baseline=("old",),
                only_current=(),
            ),
        }
    )


def _renamed(prompt: Prompt, number: int) -> Prompt:
    """The first two prompts hold what must not get out of its place."""
    changes: dict[int, dict[str, object]] = {
        0: {"prompt": HOSTILE, "categories": {"kind": "a|b </td>"}},
        1: {"prompt": RTL, "id": "x\u202e<b>|`y"},
    }
    return prompt.model_copy(update=changes.get(number, {}))


def _row(prompt: Prompt, seed: int, file: Path, folder: Path) -> SampleResult:
    reference = load_image(file)
    return SampleResult(
        prompt=prompt,
        seed=seed,
        ground_truth=None,
        reference=_picture(reference, prompt, seed, "reference", folder),
        variants={name: _variant(name, reference, prompt, seed, folder) for name in VARIANTS},
    )


def _variant(name: str, reference: ImageArray, prompt: Prompt, seed: int, folder: Path) -> PairResult:
    damage = {1: "black", 2: "missing", 3: "size"}.get(seed) if name == "int4" and prompt.language == "zh" else None
    if damage == "missing":
        return PairResult(identical=False, values={}, image=None, failure="missing")
    if damage == "size":
        return PairResult(identical=False, values={}, image=None, failure="size 64x128 instead of 128x128")
    if damage == "black":
        made = np.zeros_like(reference)
    elif name == "int8" and seed == 0:
        made = reference
    else:
        darker = 1 if name == "int8" else 4 + 3 * seed + len(prompt.lines)
        made = np.clip(reference.astype(int) - darker, 0, 255).astype(np.uint8)
    same = np.array_equal(made, reference)
    value = None if same else float(peak_signal_noise_ratio(reference, made, data_range=255))
    picture = _picture(made, prompt, seed, name, folder)
    if damage:
        picture = picture.model_copy(update={"defect": "black"})
    return PairResult(identical=same, values={"psnr": value}, image=picture)


def _picture(picture: ImageArray, prompt: Prompt, seed: int, name: str, folder: Path) -> ImageResult:
    file = f"{name}-{prompt.lines[0]}-{seed}.png"
    Image.fromarray(picture).save(folder / file)
    read = [MISREAD.get(line, line) for line in prompt.lines] if name == "int4" and seed < 3 else list(prompt.lines)
    read = read if picture.any() else []
    return ImageResult(
        file=file,
        values=score_text(prompt.lines, read, prompt.language),
        notes={"read": tuple(read)},
        defect=None,
    )


def _history() -> tuple[HistoryPoint, ...]:
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


def _mean(value: float) -> MeanCI:
    return MeanCI(mean=value, low=value - 0.5, high=value + 0.5, count=32)


def make_many_results(prompts: int, variants: int) -> Results:
    """As many rows as a large run has, whose names are long and hostile; nothing is painted."""
    scores = [Score(name=f"s{i}", title=f"score {i}") for i in range(3)]
    names = [f"variant {i} {HOSTILE}" for i in range(variants)]
    rows = [
        SampleResult(
            prompt=Prompt(
                id=f"{i} {HOSTILE}", prompt=HOSTILE, language="en", categories={"kind": f"{i % 8} {HOSTILE}"}
            ),
            seed=0,
            ground_truth=None,
            reference=None,
            variants={name: _plain(i, scores) for name in names},
        )
        for i in range(prompts)
    ]
    return make_results(rows, scores, (), verdict="not measured")


def _plain(number: int, scores: Sequence[Score]) -> PairResult:
    if number % 2:
        return PairResult(identical=False, values={}, image=None, failure="missing")
    return PairResult(identical=False, values={score.name: number / 7 for score in scores}, image=None)
