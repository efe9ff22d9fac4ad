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

from ...errors import UserError
from ...models.npu import Part
from ...progress import Progress
from ...prompts import load_prompts
from ...runtime.noise import noise
from ...runtime.prompt import Reader
from ...runtime.rknn.chain import Arrays, RunPart
from ...runtime.rknn.simulator import save_samples
from ...runtime.rknn.tiles import chained
from ...runtime.schedule import schedule
from ...runtime.sessions import Sessions
from ...sources import prompt_file
from ..onnx.golden import Reference
from ..onnx.picture import Painted, paint, repaint
from .job import Job
from .measure import Sample

GOLDENS = 3  # calls of a part that it is simulated on: the first, one in the middle, the last
THINNED = 32  # calls of which every second goes, but for the first and the last
STEPS = 8
Calls = dict[str, list[Sample]]  # of parts, by name


def painted_by_torch(job: Job) -> Painted:
    """The picture of the first prompt that the pipeline is evaluated with, by the model as it was given."""
    reference = Reference(job.model.folder, job.model.family, {})
    return paint(reference, job.host, reference.ids(job.host), job.size)


def recorded(job: Job, run: RunPart, painted: Painted | None, files: Mapping[str, Path]) -> Calls:
    """What parts are given and give while they paint, a few calls of each.

    Where not all graphs are there, a prompt is read as far as they go, and other inputs are drawn at random; those of
    tiles are what decoding random latents gives them.

    Args:
        run: parts in floats. files: their ONNX, by name.
    """
    calls: dict[str, list[Sample]] = {part.name: [] for part in job.parts}

    def record(name: str, inputs: Arrays) -> NDArray[np.float32]:
        output = run(name, inputs)
        calls[name].append(Sample(inputs, output))
        if len(calls[name]) == THINNED:  # tiles are many, and large
            calls[name][1:-1] = calls[name][1:-1:2]
        return output

    graphs = chained(job.host, job.links, record)
    if painted is not None:
        repaint(replace(painted, host=job.host), graphs)
    else:
        with suppress(UserError):  # of the first graph that is not there
            job.host.encode(graphs, Reference(job.model.folder, job.model.family, {}).ids(job.host))
        for name, (first, *_) in job.graphs.items():
            if not calls[first.name]:
                is_begin = job.host.tiling and name == job.host.tiling.begin
                graphs(job.host.decoder if is_begin else name, random_inputs(files[first.name]))
    return {name: spread(found) for name, found in calls.items()}


def again(calls: Iterable[Sample], name: str, file: Path) -> list[Sample]:
    """The same inputs, and what another ONNX of the part answers."""
    session = Sessions({name: file})
    return [Sample(one.inputs, session(name, one.inputs)) for one in calls]


def calibrate(job: Job, run: RunPart, parts: Iterable[Part], tokenizer: Path, folder: Path, progress: Progress) -> None:
    """Leaves samples of parts in folders of their names: every step of some prompts, painted by parts in floats."""
    samples: dict[str, list[Arrays]] = {part.name: [] for part in parts}

    def sample(name: str, inputs: Arrays) -> NDArray[np.float32]:
        if name in samples:
            samples[name].append(inputs)
        return run(name, inputs)

    reader = Reader(tokenizer, job.host.template, job.host.max_tokens)
    prompts = load_prompts(prompt_file(job.model.folder, "own", "calibration"))[: job.settings.samples]
    for number, prompt in enumerate(prompts):
        progress("calibrating", number, len(prompts))
        deque(steps(job, sample, reader.read(prompt.prompt).ids, number), maxlen=0)
    progress("calibrating", len(prompts), len(prompts))
    for name, found in samples.items():
        save_samples(found, folder / name)


@dataclass(frozen=True)
class Step:
    """A step of painting: latents and a timestep, the prompt as the host has read it, and the velocity there."""

    latents: NDArray[np.float32]
    timestep: float
    caption: Any
    velocity: NDArray[np.float32]


def steps(job: Job, run: RunPart, ids: NDArray[np.int64], seed: int) -> Iterator[Step]:
    """Paints a prompt of some tokens with parts, to the end."""
    graphs = chained(job.host, job.links, run)
    latents = noise(job.host.latent_shape(*job.size), seed)
    plan = schedule(job.model.configs()["scheduler"], STEPS, job.host.tokens(*job.size))
    caption = job.host.encode(graphs, ids)
    for number, timestep in enumerate(plan.timesteps):
        velocity = job.host.velocity(graphs, latents, float(timestep), caption)
        yield Step(latents, float(timestep), caption, velocity)
        latents = plan.step(latents, velocity, number)
    job.host.decode(graphs, latents)


def random_inputs(file: Path) -> Arrays:
    """Normal inputs of a graph, by the shapes that the ONNX of its first part has."""
    generator = np.random.default_rng(0)
    graph = ir.load(file).graph
    return {str(port.name): generator.standard_normal(_shape(port), np.float32) for port in graph.inputs}


def _shape(port: ir.Value) -> tuple[int, ...]:
    assert port.shape is not None
    return port.shape.numpy()


def spread(calls: Sequence[Any]) -> list[Any]:
    """The first, the last, and some between."""
    places = np.linspace(0, len(calls) - 1, min(GOLDENS, len(calls))).round().astype(int)
    return [calls[place] for place in places]
