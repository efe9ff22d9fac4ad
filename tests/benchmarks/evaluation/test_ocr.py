"""The benchmark of OCR, on images whose ink is known and on one that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.benchmarks.evaluation import ocr
from edgepress.benchmarks.evaluation.ocr import Case, WordReading, draw_word, list_rows, read_word
from edgepress.demo.signs.dataset import FONTS

HAS_FONTS = all(Path(path).exists() for path, _ in FONTS.values())
needs_fonts = pytest.mark.skipif(not HAS_FONTS, reason="needs fonts-dejavu-core and fonts-noto-cjk")


@needs_fonts
def test_words_are_drawn_as_a_case_says() -> None:
    plain = draw_word("OPEN", "en", Case("", 200, 100, 40))
    assert plain.shape == (100, 200, 3)
    assert plain[0, 0].tolist() == list(ocr.GROUND)
    assert plain.reshape(-1, 3).min(0).tolist() == list(ocr.INK)
    assert np.array_equal(draw_word("OPEN", "en", Case("", 200, 100, 40, turns=1)), np.rot90(plain, -1))
    assert np.array_equal(draw_word("OPEN", "en", Case("", 200, 100, 40, mirrored=True)), plain[:, ::-1])
    column = draw_word("OPEN", "en", Case("", 60, 300, 40, stacked=True))
    rows = np.flatnonzero((column.min(2) < 100).any(1))
    assert rows[-1] - rows[0] > 140  # four letters of about 30 pixels, 44 apart


@needs_fonts
def test_turned_word_does_not_count() -> None:
    outcome = read_word("HARBOUR", "en", Case("", 256, 256, 40, turns=2))
    assert outcome == WordReading(0.0, ("read, but turned by 180°",))


def test_rows_have_shares_and_counted_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("a case", 8, 8, 4)
    monkeypatch.setattr(ocr, "CASES", (case,))
    outcomes = {
        (case, "en"): [WordReading(1.0, ()), WordReading(0.0, ("turned",))],
        (case, "zh"): [WordReading(0.5, ("turned", "mirrored")), WordReading(1.0, ())],
    }
    assert list(list_rows(outcomes)) == [["a case", "50%", "75%", "turned (2); mirrored (1)"]]
