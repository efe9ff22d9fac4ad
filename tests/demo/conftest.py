"""What the demo paints of prompts that no training saw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgepress.prompts import Prompt, load_prompts
from edgepress.recipe import Pictures
from edgepress.sampling import batches, load_pipeline, sample, sampling_of
from edgepress.sources import DEMO


@pytest.fixture(scope="session")
def painted() -> list[tuple[Prompt, npt.NDArray[np.uint8]]]:
    """The first 48 evaluation prompts and their pictures, 128 x 128; about half a minute."""
    prompts = load_prompts(DEMO / "prompts" / "evaluation.jsonl")[:48]
    pipeline, sampling = load_pipeline(DEMO, torch.float32), sampling_of(Pictures(), DEMO)
    return [
        (prompt, np.asarray(image))
        for group in batches(prompts, sampling.batch)
        for prompt, image in zip(group, sample(pipeline, group, sampling), strict=True)
    ]
