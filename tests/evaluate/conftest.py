"""Images that the tests of the evaluation share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.images.types import ImageArray
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts

DATA = Path(__file__).parent / "data"  # four signs of the demo, drawn once by demo/signs


@pytest.fixture(scope="session")
def signs() -> list[tuple[Prompt, Path]]:
    """Prompts of the demo with their ground-truth images, 128 x 128."""
    return [(prompt, DATA / f"{prompt.id}.png") for prompt in load_prompts(DATA / "signs.jsonl")]


@pytest.fixture
def noise() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
