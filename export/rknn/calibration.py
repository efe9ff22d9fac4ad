"""What parts are given and what they give while pictures are painted: golden calls, and samples to calibrate on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.progress import Progress
from ...models.base.npu import GraphPart
from ...prompts.prompt import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...runtime.noise import torch_randn
from ...runtime.onnx.sessions import SessionPool
from ...runtime.rknn.part_chain import Arrays, RunPart
from ...runtime.rknn.simulator import save_calibration_samples
from ...runtime.rknn.vae_tiling import chain_graphs
from ...runtime.scheduler import make_schedule
from ...runtime.tokenizer import PromptTokenizer
from ..verification.golden import TorchReference
from ..verification.image_parity import ReferenceImage, generate_reference, generate_with_graphs
from .building.simulation import GoldenSample
from .prepare import RknnJob

NUM_GOLDEN_CALLS = 3  # calls of a part that it is simulated on: the first, one in the middle, the last
THIN_ABOVE = 32  # calls of which every second goes, but for the first and the last
NUM_STEPS = 8
PartCalls = dict[str, list[GoldenSample]]  # of parts, by name


def generate_torch_image(job: RknnJob) -> ReferenceImage:
    """The picture of the first prompt that the pipeline is evaluated with, by the model as it was given."""
    reference = TorchReference(job.model.folder, job.model.family, {})
    return generate_reference(reference, job.host, reference.tokenize(job.host), job.image_size)


def record_calls(
    job: RknnJob, run_part: RunPart, reference_image: ReferenceImage | None, onnx_files: Mapping[str, Path]
) -> PartCalls:
    """What parts are given and give while they paint, a few calls of each.

    Where not all graphs are there, a prompt is read as far as they go, and other inputs are drawn at random; those of
    tiles are what decoding random latents gives them.

    Args:
        run: parts in floats. files: their ONNX, by name.
    """
    calls: dict[str, list[GoldenSample]] = {part.name: [] for part in job.parts}

    def record(name: str, inputs: Arrays) -> NDArray[np.float32]:
        output = run_part(name, inputs)
        calls[name].append(GoldenSample(inputs, output))
        if len(calls[name]) == THIN_ABOVE:  # tiles are many, and large
            calls[name][1:-1] = calls[name][1:-1:2]
        return output

    graphs = chain_graphs(job.host, job.part_refs, record)
    if reference_image is not None:
        generate_with_graphs(replace(reference_image, host=job.host), graphs)
    else:
        with suppress(UserError):  # of the first graph that is not there
            job.host.encode_prompt(graphs, TorchReference(job.model.folder, job.model.family, {}).tokenize(job.host))
        for name, (first, *_) in job.graphs.items():
            if not calls[first.name]:
                is_begin = job.host.decoder_tiling and name == job.host.decoder_tiling.first_graph
                graphs(job.host.decoder_graph if is_begin else name, make_random_inputs(onnx_files[first.name]))
    return {name: pick_evenly(found) for name, found in calls.items()}


def rerun_calls(calls: Iterable[GoldenSample], name: str, onnx_file: Path) -> list[GoldenSample]:
    """The same inputs, and what another ONNX of the part answers."""
    session = SessionPool({name: onnx_file})
    return [GoldenSample(one.inputs, session(name, one.inputs)) for one in calls]


def collect_calibration_samples(
    job: RknnJob, run_part: RunPart, parts: Iterable[GraphPart], tokenizer: Path, folder: Path, progress: Progress
) -> None:
    """Leaves samples of parts in folders of their names: every step of some prompts, painted by parts in floats."""
    samples: dict[str, list[Arrays]] = {part.name: [] for part in parts}

    def sample(name: str, inputs: Arrays) -> NDArray[np.float32]:
        if name in samples:
            samples[name].append(inputs)
        return run_part(name, inputs)

    reader = PromptTokenizer(tokenizer, job.host.chat_template_kwargs, job.host.max_tokens)
    prompts = load_prompts(resolve_prompt_set(job.model.folder, "own", "calibration"))[: job.settings.samples]
    for number, prompt in enumerate(prompts):
        progress("calibrating", number, len(prompts))
        deque(denoise(job, sample, reader.tokenize(prompt.prompt).ids, number), maxlen=0)
    progress("calibrating", len(prompts), len(prompts))
    for name, found in samples.items():
        save_calibration_samples(found, folder / name)


@dataclass(frozen=True)
class DenoisingStep:
    """A step of painting: latents and a timestep, the prompt as the host has read it, and the velocity there."""

    latents: NDArray[np.float32]
    timestep: float
    encoded_prompt: Any
    velocity: NDArray[np.float32]


def denoise(job: RknnJob, run_part: RunPart, token_ids: NDArray[np.int64], seed: int) -> Iterator[DenoisingStep]:
    """Paints a prompt of some tokens with parts, to the end."""
    graphs = chain_graphs(job.host, job.part_refs, run_part)
    latents = torch_randn(job.host.latent_shape(*job.image_size), seed)
    plan = make_schedule(job.model.configs()["scheduler"], NUM_STEPS, job.host.count_image_tokens(*job.image_size))
    caption = job.host.encode_prompt(graphs, token_ids)
    for number, timestep in enumerate(plan.timesteps):
        velocity = job.host.predict_velocity(graphs, latents, float(timestep), caption)
        yield DenoisingStep(latents, float(timestep), caption, velocity)
        latents = plan.step(latents, velocity, number)
    job.host.decode_latents(graphs, latents)


def make_random_inputs(file: Path) -> Arrays:
    """Normal inputs of a graph, by the shapes that the ONNX of its first part has."""
    generator = np.random.default_rng(0)
    graph = ir.load(file).graph
    return {str(port.name): generator.standard_normal(_get_static_shape(port), np.float32) for port in graph.inputs}


def _get_static_shape(port: ir.Value) -> tuple[int, ...]:
    assert port.shape is not None
    return port.shape.numpy()


def pick_evenly(calls: Sequence[Any]) -> list[Any]:
    """The first, the last, and some between."""
    places = np.linspace(0, len(calls) - 1, min(NUM_GOLDEN_CALLS, len(calls))).round().astype(int)
    return [calls[place] for place in places]
