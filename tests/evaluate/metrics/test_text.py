from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.metrics.base import MetricSettings
from edgepress.evaluate.metrics.text import create_metric
from edgepress.prompts.prompt import Prompt

BLANK = np.full((64, 64, 3), 250, np.uint8)


@pytest.mark.slow
def test_correct_sign_scores_1_and_its_lines_are_noted(signs: list[tuple[Prompt, Path]]) -> None:
    prompt, file = signs[-1]
    result = create_metric(MetricSettings()).measure(load_image(file), prompt)
    assert result.values == {"text_accuracy": 1, "exact": 1, "ned": 1}
    assert "".join("".join(result.notes["read"]).split()) == "".join(prompt.lines)


@pytest.mark.slow
def test_blank_image_scores_0(signs: list[tuple[Prompt, Path]]) -> None:
    result = create_metric(MetricSettings()).measure(BLANK, signs[0][0])
    assert result.values == {"text_accuracy": 0, "exact": 0, "ned": 0}
    assert result.notes == {"read": ()}


def test_prompt_without_text_is_not_scored() -> None:
    result = create_metric(MetricSettings()).measure(BLANK, Prompt(id="a", prompt="a wall", language="en"))
    assert result.values == {"text_accuracy": None, "exact": None, "ned": None}
    assert result.notes == {}
