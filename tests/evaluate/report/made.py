"""Results of two variants on the demo's true signs, with everything that a report must show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from edgepress.evaluate.bootstrap import Mean
from edgepress.evaluate.gates import judge, limits_of, verdict_of
from edgepress.evaluate.metrics import psnr, text
from edgepress.evaluate.pictures import open_picture
from edgepress.evaluate.registry import Picture, Score, Settings
from edgepress.evaluate.results import Baseline, Change, PictureRow, Point, Results, Row, VariantRow
from edgepress.evaluate.summary import Pair, summarise
from edgepress.evaluate.text_scores import score_text
from edgepress.prompts import Prompt

from ..rows import PSNR, identity, results_of

HOSTILE = (
    "</script><img src=http://evil.test/x onerror=alert(1)> \u202egnp.exe | `code` & \"quotes\" 'too' @everyone \x07"
)
RTL = "لافتة حمراء: مفتوح"
SEEDS = 4
VARIANTS = ("int4", "int8")
CHANGED = {"FRESH": "FRASH"}  # what is read of the variant int4


def results(signs: Sequence[tuple[Prompt, Path]], folder: Path) -> Results:
    """Of every sign, `SEEDS` seeds: int4 is darker, int8 nearly the reference; six of int4's pictures are damaged."""
    asked = [_renamed(prompt, number) for number, (prompt, _) in enumerate(signs)]
    files = [file for _, file in signs]
    rows = [
        _row(prompt, seed, file, folder) for seed in range(SEEDS) for prompt, file in zip(asked, files, strict=True)
    ]
    found = results_of(rows, (PSNR,), text.SCORES)
    subject = found.identity.reference
    again = [Pair(row, VariantRow(identical=True, values={"psnr": None}, picture=row.reference)) for row in rows]
    metrics = [psnr.make(Settings()), text.make(Settings())]
    limits = limits_of({"psnr_min": 36.0, "text_accuracy_drop": 2.0, "exact_drop": "30%"}, metrics, truth=False)
    limits += limits_of({"psnr_drop": 1.0}, metrics, truth=False)[1:]
    gates = tuple(gate for name, summary in found.variants.items() for gate in judge(name, summary, limits))
    return found.model_copy(
        update={
            "identity": identity(variants=dict.fromkeys(VARIANTS, subject), pictures=str(folder)),
            "floor": summarise(again, (PSNR,), text.SCORES),
            "gates": gates,
            "verdict": verdict_of(gates, found.variants.values()),
            "unmeasured": {"lpips": "no weights were given"},
            "history": _history(),
            "baseline": Baseline(
                path="then/results.json",
                created="2026-11-01T00:00:00+00:00",
                edgepress="0.0.9",
                changes=(Change(variant="int4", score="psnr", before=30, after=31, change=_mean(1)),),
                only_then=("old",),
                only_now=(),
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


def _row(prompt: Prompt, seed: int, file: Path, folder: Path) -> Row:
    reference = open_picture(file)
    return Row(
        prompt=prompt,
        seed=seed,
        truth=None,
        reference=_picture(reference, prompt, seed, "reference", folder),
        variants={name: _variant(name, reference, prompt, seed, folder) for name in VARIANTS},
    )


def _variant(name: str, reference: Picture, prompt: Prompt, seed: int, folder: Path) -> VariantRow:
    damage = {1: "black", 2: "missing", 3: "size"}.get(seed) if name == "int4" and prompt.language == "zh" else None
    if damage == "missing":
        return VariantRow(identical=False, values={}, picture=None, failure="missing")
    if damage == "size":
        return VariantRow(identical=False, values={}, picture=None, failure="size 64x128 instead of 128x128")
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
    return VariantRow(identical=same, values={"psnr": value}, picture=picture)


def _picture(picture: Picture, prompt: Prompt, seed: int, name: str, folder: Path) -> PictureRow:
    file = f"{name}-{prompt.lines[0]}-{seed}.png"
    Image.fromarray(picture).save(folder / file)
    read = [CHANGED.get(line, line) for line in prompt.lines] if name == "int4" and seed < 3 else list(prompt.lines)
    read = read if picture.any() else []
    return PictureRow(
        file=file,
        values=score_text(prompt.lines, read, prompt.language),
        notes={"read": tuple(read)},
        defect=None,
    )


def _history() -> tuple[Point, ...]:
    """Three runs of both variants."""
    return tuple(
        Point(
            created=f"2026-11-{day:02d}T00:00:00+00:00",
            edgepress="0.1.0",
            variant=name,
            score=score,
            kind=kind,
            value=value + day / 10,
            low=value,
            high=value + 2,
            pictures=30,
        )
        for day in (1, 2, 20)
        for name in VARIANTS
        for score, kind, value in (("psnr", "mean", 30.0), ("exact", "drop", 0.1))
    )


def _mean(value: float) -> Mean:
    return Mean(mean=value, low=value - 0.5, high=value + 0.5, count=32)


def many(prompts: int, variants: int) -> Results:
    """As many rows as a large run has, whose names are long and hostile; nothing is painted."""
    scores = [Score(name=f"s{i}", title=f"score {i}") for i in range(3)]
    names = [f"variant {i} {HOSTILE}" for i in range(variants)]
    rows = [
        Row(
            prompt=Prompt(
                id=f"{i} {HOSTILE}", prompt=HOSTILE, language="en", categories={"kind": f"{i % 8} {HOSTILE}"}
            ),
            seed=0,
            truth=None,
            reference=None,
            variants={name: _plain(i, scores) for name in names},
        )
        for i in range(prompts)
    ]
    return results_of(rows, scores, (), verdict="not measured")


def _plain(number: int, scores: Sequence[Score]) -> VariantRow:
    if number % 2:
        return VariantRow(identical=False, values={}, picture=None, failure="missing")
    return VariantRow(identical=False, values={score.name: number / 7 for score in scores}, picture=None)
