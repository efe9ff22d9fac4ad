"""Generates images with parts in floats, and saves the inputs of each part as calibration samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.progress import Progress
from ...models.base.npu import GraphPart
from ...models.base.prompt_tokens import TokensByTokenizer
from ...prompts.prompt import Prompt
from ...prompts.sets import load_prompt_set, resolve_prompt_set, warn_if_fewer
from ...prompts.truncation import warn_once
from ...runtime.noise import torch_randn
from ...runtime.rknn.part_chain import Arrays, RunPart
from ...runtime.rknn.simulator import save_calibration_samples
from ...runtime.rknn.vae_tiling import chain_graphs
from ...runtime.scheduler import make_schedule
from ...runtime.tokenizers import PromptTokenizers
from .part_calls import PartCalls
from .prepare import RknnJob

NUM_STEPS = 8


def write_calibration_samples(
    job: RknnJob,
    parts: Iterable[GraphPart],
    run_part: RunPart,
    calls: PartCalls,
    tokenizer: Path,
    folder: Path,
    progress: Progress,
) -> None:
    """Writes the calibration samples of those parts that are quantized.

    Parts whose activations stay floats get a single sample: the toolkit requires one, and does not use its values.

    Args:
        job: The export.
        parts: The parts to write samples of.
        run_part: Runs all parts in floats.
        calls: Recorded calls of all parts.
        tokenizer: Folder of the tokenizer's files.
        folder: Each part's samples go to the folder of its name in it.
        progress: Called with the stage "calibrating".

    Raises:
        UserError: Graphs are missing that generate images.
    """
    quantized = [(part, scheme) for part in parts if (scheme := job.get_scheme(part))]
    calibrated = [part for part, scheme in quantized if scheme.quantizes_activations]
    if calibrated and not job.is_complete:
        raise UserError("Calibration generates images, which needs all components. Remove --component.")
    if calibrated:
        collect_calibration_samples(job, run_part, calibrated, tokenizer, folder, progress)
    for part, scheme in quantized:
        if not scheme.quantizes_activations:
            save_calibration_samples([calls[part.name][0].inputs], folder / part.name)


def collect_calibration_samples(
    job: RknnJob, run_part: RunPart, parts: Iterable[GraphPart], tokenizer: Path, folder: Path, progress: Progress
) -> None:
    """Saves the inputs of parts at every step of some calibration prompts.

    Args:
        job: The export; its settings say how many prompts.
        run_part: Runs the parts in floats.
        parts: The parts to save inputs of.
        tokenizer: Folder of the tokenizer's files.
        folder: Each part's samples go to the folder of its name in it.
        progress: Called with the stage "calibrating".
    """
    samples: dict[str, list[Arrays]] = {part.name: [] for part in parts}

    def record_inputs(name: str, inputs: Arrays) -> NDArray[np.float32]:
        if name in samples:
            samples[name].append(inputs)
        return run_part(name, inputs)

    tokenizers = PromptTokenizers(tokenizer.parent, job.host.prompt_formats)
    prompts = _load_calibration_prompts(job)
    for number, prompt in enumerate(prompts):
        progress("calibrating", number, len(prompts))
        tokenized = tokenizers.tokenize(prompt.prompt)
        if tokenized.truncation_notice:
            warn_once(tokenized.truncation_notice)
        deque(denoise(job, record_inputs, tokenized.tokens, number), maxlen=0)
    progress("calibrating", len(prompts), len(prompts))
    for name, inputs in samples.items():
        save_calibration_samples(inputs, folder / name)


def _load_calibration_prompts(job: RknnJob) -> list[Prompt]:
    prompt_set, count = resolve_prompt_set(job.model.folder, "auto", "calibration"), job.settings.samples
    prompts = load_prompt_set(prompt_set)
    if "samples" in job.settings.model_fields_set:
        warn_if_fewer(prompts, count, prompt_set, "rknn.samples")
    return prompts[:count]


@dataclass(frozen=True)
class DenoisingStep:
    """A step of generating an image.

    Attributes:
        latents: Latents before the step, float32.
        timestep: Timestep of the schedule.
        encoded_prompt: The prompt, as the host encodes it.
        velocity: The predicted velocity, of the latents' shape.
    """

    latents: NDArray[np.float32]
    timestep: float
    encoded_prompt: Any
    velocity: NDArray[np.float32]


def denoise(job: RknnJob, run_part: RunPart, tokens: TokensByTokenizer, seed: int) -> Iterator[DenoisingStep]:
    """Generates an image with parts, decoding included, and yields every step.

    Args:
        job: The export.
        run_part: Runs a part by name.
        tokens: Tokens of the prompt, by tokenizer.
        seed: Seed of the noise.
    """
    run_graph = chain_graphs(job.host, job.part_refs, run_part)
    latents = torch_randn(job.host.latent_shape(*job.image_size), seed)
    num_tokens = job.host.count_image_tokens(*job.image_size)
    schedule = make_schedule(job.model.configs["scheduler"], NUM_STEPS, num_tokens)
    encoded_prompt = job.host.encode_prompt(run_graph, tokens)
    for number, timestep in enumerate(schedule.timesteps):
        velocity = job.host.predict_velocity(run_graph, latents, float(timestep), encoded_prompt)
        yield DenoisingStep(latents, float(timestep), encoded_prompt, velocity)
        latents = schedule.step(latents, velocity, number)
    job.host.decode_latents(run_graph, latents)
