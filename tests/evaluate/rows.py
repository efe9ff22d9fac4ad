"""Rows made by hand."""

from __future__ import annotations

from edgepress.evaluate.registry import Score
from edgepress.evaluate.results import PictureRow, Row
from edgepress.prompts import Prompt

PSNR = Score(name="psnr", title="PSNR", unit="dB")
FLIP = Score(name="flip", title="FLIP", higher_is_better=False)
TEXT = Score(name="text_accuracy", title="text accuracy", unit="%")


def prompt(name: str, language: str = "en", **categories: str) -> Prompt:
    return Prompt.model_validate({"id": name, "prompt": name, "language": language, "categories": categories})


def picture(text: float | None, defect: str | None = None) -> PictureRow:
    return PictureRow.model_validate(
        {"file": "x/0.png", "values": {"text_accuracy": text}, "notes": {"read": ["A"]}, "defect": defect}
    )


def row(
    asked: Prompt, psnr: float | None, texts: tuple[float | None, float | None] = (1, 1), flip: float = 0, seed: int = 0
) -> Row:
    return Row(
        prompt=asked,
        seed=seed,
        identical=psnr is None,
        values={"psnr": psnr, "flip": flip},
        reference=picture(texts[0]),
        variant=picture(texts[1]),
    )
