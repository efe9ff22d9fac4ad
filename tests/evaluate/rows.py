"""Rows and results made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from edgepress.evaluate.identity import FolderIdentity
from edgepress.evaluate.registry import Score
from edgepress.evaluate.results import CUT, Identity, PictureRow, Results, Row, SamplingIdentity, Subject, VariantRow
from edgepress.evaluate.summary import pairs_of, reference_defects, summarise
from edgepress.prompts import Prompt

PSNR = Score(name="psnr", title="PSNR", unit="dB")
FLIP = Score(name="flip", title="FLIP", higher_is_better=False)
TEXT = Score(name="text_accuracy", title="text accuracy", unit="%")
EXACT = Score(name="exact", title="exact text", unit="%", binary=True)
VARIANT = "int4"


def prompt(name: str, language: str = "en", **categories: str) -> Prompt:
    return Prompt.model_validate({"id": name, "prompt": name, "language": language, "categories": categories})


def picture(text: float | None, defect: str | None = None) -> PictureRow:
    exact = None if text is None else float(text == 1)
    return PictureRow.model_validate(
        {
            "file": "x/0.png",
            "values": {"text_accuracy": text, "exact": exact},
            "notes": {"read": ["A"]},
            "defect": defect,
        }
    )


def variant(psnr: float | None, text: float | None = 1, flip: float = 0, defect: str | None = None) -> VariantRow:
    return VariantRow(identical=psnr is None, values={"psnr": psnr, "flip": flip}, picture=picture(text, defect))


def failed(failure: str = "missing") -> VariantRow:
    return VariantRow(identical=False, values={}, picture=None, failure=failure)


def row(
    asked: Prompt, psnr: float | None, texts: tuple[float | None, float | None] = (1, 1), flip: float = 0, seed: int = 0
) -> Row:
    """One variant's row; the scores of text are those of the reference and of the variant."""
    return row_of(asked, variant(psnr, texts[1], flip), texts[0], seed)


def row_of(asked: Prompt, made: VariantRow, text: float | None = 1, seed: int = 0, defect: str | None = None) -> Row:
    return Row(prompt=asked, seed=seed, truth=None, reference=picture(text, defect), variants={VARIANT: made})


def cut(made: Row, said: str) -> Row:
    """The row with a variant's picture whose prompt was cut."""
    one = made.variants[VARIANT]
    assert one.picture
    shorter = one.picture.model_copy(update={"notes": one.picture.notes | {CUT: (said,)}})
    return made.model_copy(update={"variants": {VARIANT: one.model_copy(update={"picture": shorter})}})


def identity(**changed: object) -> Identity:
    subject = Subject(
        kind="diffusers", folder=FolderIdentity(path="model", sha256="0" * 64, files=1, bytes=1), dtype="float32"
    )
    return Identity(
        reference=subject,
        variants={VARIANT: subject},
        truth=None,
        sampling=SamplingIdentity(height=64, width=96, steps=2, guidance=0.0, seeds=1),
        prompts="set.jsonl",
        prompts_sha256="0" * 64,
        metrics={"psnr": "1", "flip": "1", "text": "1"},
        libraries={"torch": "2"},
        device="orin",
        pictures="pictures",
    ).model_copy(update=changed)


def results_of(
    rows: Sequence[Row],
    pair_scores: Sequence[Score] = (PSNR, FLIP),
    picture_scores: Sequence[Score] = (TEXT, EXACT),
    **changed: object,
) -> Results:
    """What an evaluation of these rows would have written."""
    names = list(rows[0].variants) if rows else [VARIANT]
    return Results(
        created="2026-11-21T12:00:00+00:00",
        edgepress="0.1.0",
        identity=identity(),
        seconds={"painting": 1.0},
        costs={},
        pair_scores=tuple(pair_scores),
        picture_scores=tuple(picture_scores),
        unmeasured={},
        reference_defects=reference_defects(rows),
        variants={name: summarise(pairs_of(rows, name), pair_scores, picture_scores) for name in names},
        floor=None,
        gates=(),
        strict=False,
        verdict=None,
        baseline=None,
        history=None,
        rows=tuple(rows),
    ).model_copy(update=changed)
