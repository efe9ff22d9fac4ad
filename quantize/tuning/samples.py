"""Samples to tune a denoiser on: the calls of the reference while it generates images of the calibration's prompts.

The reference denoiser reads what the quantized text encoders make of a prompt, since that is what the quantized
denoiser will read. Every batch of images is one file in the workspace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...common.progress import Progress
from ...pipelines.sampling import SamplingParams, batched, generate_images
from ...prompts.prompt import Prompt
from ..threads import single_threaded_pool
from .calls import DenoiserCall, load_calls, record_calls, save_calls, split_call
from .trainable import replicate

VALIDATION_SHARE = 8  # every eighth prompt validates
STAGE = "tuning: reference"


@dataclass(frozen=True)
class Samples:
    """Calls of a reference denoiser, of one sample each.

    Attributes:
        train: Those to train on.
        validation: Those of other prompts.
        prompts: The number of prompts that are trained on.
        validation_prompts: The number of the others.
    """

    train: Sequence[DenoiserCall]
    validation: Sequence[DenoiserCall]
    prompts: int
    validation_prompts: int


@dataclass(frozen=True)
class _Batch:
    """Images that are generated at once.

    Attributes:
        file: Where its calls are stored.
        prompts: The prompts.
        seed: The seed of their noise.
    """

    file: Path
    prompts: Sequence[Prompt]
    seed: int


def split_prompts(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Returns the prompts to train on and those to validate on; a single prompt is both, with other noise."""
    validation = list(prompts[VALIDATION_SHARE - 1 :: VALIDATION_SHARE] or prompts[-1:])
    return [prompt for prompt in prompts if prompt not in validation] or validation, validation


def collect_samples(
    pipeline: Any,
    denoiser: str,
    prompts: Sequence[Prompt],
    seeds: int,
    sampling: SamplingParams,
    folder: Path,
    num_threads: int,
    progress: Progress,
) -> Samples:
    """Generates the samples that are not stored yet.

    Args:
        pipeline: The reference, with quantized text encoders.
        denoiser: Name of the denoiser whose calls are recorded.
        prompts: Of the calibration.
        seeds: Images of each prompt that is trained on.
        sampling: How images are generated.
        folder: Where the samples are stored.
        num_threads: How many batches are generated at once.
        progress: Called with batches of images.
    """
    training, held_out = split_prompts(prompts)
    train = [batch for seed in range(seeds) for batch in _list_batches(training, sampling, folder / f"{seed}", seed)]
    validation = list(_list_batches(held_out, sampling, folder / "validation", seeds))
    missing = [batch for batch in (*train, *validation) if not batch.file.exists()]
    done, total = len(train) + len(validation) - len(missing), len(train) + len(validation)
    progress(STAGE, done, total)
    with single_threaded_pool(num_threads) as pool:
        finished = pool.map(partial(_generate, pipeline, denoiser, sampling), missing)
        for number, _ in enumerate(finished, done + 1):
            progress(STAGE, number, total)
    return Samples(_load_samples(train), _load_samples(validation), len(training), len(held_out))


def measure_image(pipeline: Any, denoiser: str, prompt: Prompt, sampling: SamplingParams) -> tuple[float, int]:
    """Returns the operations of one of a denoiser's calls for one image, and how many calls an image takes."""
    module = getattr(pipeline, denoiser)
    with torch.no_grad(), record_calls(module) as calls, count_flops(module) as counts:
        generate_images(pipeline, [prompt], sampling, output_type="latent")
    num_calls = sum(call.num_samples for call in calls)
    return sum(counts) / num_calls, num_calls


@contextmanager
def count_flops(denoiser: nn.Module) -> Iterator[list[int]]:
    """Counts the operations of each call of a denoiser: those of matrix products, by their shapes."""
    counts: list[int] = []
    forward = denoiser.forward

    def count(*args: Any, **kwargs: Any) -> Any:
        counter = FlopCounterMode(display=False)
        with counter:
            output = forward(*args, **kwargs)
        counts.append(counter.get_total_flops())
        return output

    denoiser.forward = count
    try:
        yield counts
    finally:
        denoiser.forward = forward


def _list_batches(prompts: Sequence[Prompt], sampling: SamplingParams, folder: Path, seed: int) -> Iterator[_Batch]:
    folder.mkdir(parents=True, exist_ok=True)
    for number, batch in enumerate(batched(prompts, sampling.batch_size)):
        yield _Batch(folder / f"{number:04d}.pt", batch, seed)


def _load_samples(batches: Sequence[_Batch]) -> list[DenoiserCall]:
    return [sample for batch in batches for call in load_calls(batch.file) for sample in split_call(call)]


def _generate(pipeline: Any, denoiser: str, sampling: SamplingParams, batch: _Batch) -> None:
    """Generates a batch with a copy of the pipeline, since its denoiser, scheduler and tokenizers have a state."""
    pipeline = copy.copy(pipeline)
    for name, component in pipeline.components.items():
        if not isinstance(component, nn.Module):
            setattr(pipeline, name, copy.deepcopy(component))
    module = replicate(getattr(pipeline, denoiser))
    setattr(pipeline, denoiser, module)
    with torch.no_grad(), record_calls(module) as calls:
        generate_images(pipeline, batch.prompts, sampling, batch.seed, output_type="latent")
    save_calls(calls, batch.file)
