"""Images that the demo generates for held-out prompts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import batched, generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts
from edgepress.recipes.schema import GenerationSettings


@pytest.fixture(scope="session")
def generated() -> list[tuple[Prompt, npt.NDArray[np.uint8]]]:
    """The first 48 evaluation prompts and their images, 128 x 128. Takes about half a minute."""
    prompts = load_prompts(DEMO_PIPELINE / "prompts" / "evaluation.jsonl")[:48]
    pipeline = load_pipeline(DEMO_PIPELINE, torch.float32)
    sampling = resolve_sampling(GenerationSettings(), DEMO_PIPELINE)
    return [
        (prompt, np.asarray(image))
        for batch in batched(prompts, sampling.batch_size)
        for prompt, image in zip(batch, generate_images(pipeline, batch, sampling), strict=True)
    ]
