"""The images of the README: how prompts are chosen, and that the drawing fits its columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepress.benchmarks.evaluation import readme_images
from edgepress.benchmarks.evaluation.readme_images import METHODS, Comparison, draw_comparison, select_samples


def make_sample(language: str, number: int, psnr: float) -> Any:
    variants = {"rtn": SimpleNamespace(values={"psnr": psnr})}
    return SimpleNamespace(prompt=SimpleNamespace(language=language, id=f"{language}-{number}"), variants=variants)


def test_prompts_are_quantiles_of_their_language() -> None:
    samples = [make_sample(language, number, 30.0 + number) for number in range(9) for language in ("zh", "en")]
    selected = select_samples(SimpleNamespace(samples=samples[::-1]))  # type: ignore[arg-type]
    assert [sample.prompt.id for sample in selected] == ["en-0", "zh-2", "en-4", "zh-6"]


def test_differences_are_drawn_amplified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_images, "TILE", 128)
    reference = np.full((128, 128, 3), 100, np.uint8)
    images = {method: reference + np.uint8(step) for step, method in enumerate(METHODS, 1)}
    row = Comparison("a wall", None, reference, images, {"rtn": 40.0, "awq": 41.0, "best": None})
    canvas = np.asarray(draw_comparison([row], dict.fromkeys(METHODS, 40.0)))
    middle = readme_images.HEADER + 46 + 64
    left = readme_images.MARGIN + 64
    step = 128 + readme_images.GAP
    differences = [canvas[middle, left + number * step + readme_images.GROUP_GAP, 0] for number in (4, 5)]
    assert canvas[middle, left, 0] == 100
    assert differences == [readme_images.GAIN, 3 * readme_images.GAIN]
