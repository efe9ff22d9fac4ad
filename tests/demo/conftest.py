"""Images that the demo generates for held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from filelock import FileLock

from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import batched, generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts
from edgepress.recipes.schema import GenerationSettings


@pytest.fixture(scope="session")
def generated(run_folder: Path) -> list[tuple[Prompt, npt.NDArray[np.uint8]]]:
    """The first 32 evaluation prompts and their images, 128 x 128. They take half a minute, once in a run."""
    prompts = load_prompts(DEMO_PIPELINE / "prompts" / "evaluation.jsonl")[:32]
    file = run_folder / "generated.npy"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            np.save(file, generate(prompts))
    return list(zip(prompts, np.load(file), strict=True))


def generate(prompts: Sequence[Prompt]) -> npt.NDArray[np.uint8]:
    pipeline = load_pipeline(DEMO_PIPELINE, torch.float32)
    sampling = resolve_sampling(GenerationSettings(), DEMO_PIPELINE)
    batches = batched(prompts, sampling.batch_size)
    return np.stack([image for batch in batches for image in generate_images(pipeline, batch, sampling)])
