from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.errors import UserError
from edgepress.evaluate.measure import Pair, measure
from edgepress.evaluate.registry import discover
from edgepress.prompts import Prompt


def saved(picture: np.ndarray, file: Path) -> Path:
    Image.fromarray(picture).save(file)
    return file


def test_a_sign_and_a_lighter_copy(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[0]
    picture = np.asarray(Image.open(file))
    lighter = saved(picture + np.uint8(4), tmp_path / "lighter.png")
    row = measure(Pair(prompt, 3, file, lighter), discover())
    assert (row.prompt, row.seed, row.identical) == (prompt, 3, False)
    assert row.values["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    assert row.reference.values == row.variant.values == {"text_accuracy": 1, "exact": 1, "ned": 1}
    assert row.reference.file == f"data/{file.name}"
    assert row.variant.defect is None


def test_a_black_variant(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[1]
    black = saved(np.zeros((128, 128, 3), np.uint8), tmp_path / "black.png")
    row = measure(Pair(prompt, 0, file, black), discover())
    assert row.variant.defect == "black"
    assert row.variant.values["text_accuracy"] == 0


def test_identical_pictures(signs: list[tuple[Prompt, Path]]) -> None:
    prompt, file = signs[0]
    row = measure(Pair(prompt, 0, file, file), discover())
    assert row.identical
    assert row.values == {"psnr": None, "ssim": 1.0}


def test_different_sizes_are_refused(signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    prompt, file = signs[0]
    larger = saved(np.zeros((128, 160, 3), np.uint8), tmp_path / "larger.png")
    with pytest.raises(UserError, match="128x128 and 160x128"):
        measure(Pair(prompt, 0, file, larger), discover())
