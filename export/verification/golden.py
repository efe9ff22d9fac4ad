"""Golden inputs of each graph, and what torch answers them: component classes as they are, in float32.

Where a family has a host, it makes the inputs. Where it has none, they are what the pipeline itself asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...models.base.family import Family
from ...models.base.host import Host, RunGraph
from ...models.base.reference import Arrays, GoldenInput, GoldenIO, GraphOutputs, load_observer, load_reference
from ...pipelines.sampling import load_pipeline, load_pipeline_with
from ...prompts.prompt import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...storage.checkpoint import Checkpoint
from ..graph.external_weights import WeightSource
from ..graph.int8_operands import Int8Linear

PROGRESS_STAGE = "asking torch"
GOLDEN_TIMESTEP = 750.0  # where golden latents stand


@dataclass(frozen=True)
class TorchReference:
    """The pipeline folder that graphs are held against; a component's solution takes the place of what it replaces."""

    folder: Path
    family: Family
    solutions: Mapping[str, Checkpoint]

    @property
    def prompt(self) -> str:
        """The first prompt that the pipeline is evaluated with."""
        return load_prompts(resolve_prompt_set(self.folder, "own", "evaluation"))[0].prompt

    def tokenize(self, host: Host) -> NDArray[np.int64]:
        """The prompt's tokens, as the pipeline makes them."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer")
        messages = [{"role": "user", "content": self.prompt}]
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **host.chat_template_kwargs
        )
        return np.array(tokenizer(text, truncation=True, max_length=host.max_tokens).input_ids, np.int64)

    def load_component(self, name: str) -> nn.Module:
        """One component in float32, the others left on disk."""
        index = json.loads((self.folder / "model_index.json").read_text("utf-8"))
        replacements = {part: None for part in index if not part.startswith("_") and part != name}
        module: nn.Module = getattr(load_pipeline_with(self.folder, torch.float32, replacements), name)
        self.load_solution(name, module)
        return module

    def load_pipeline(self) -> Any:
        """All of it, in float32."""
        pipeline = load_pipeline(self.folder, torch.float32)
        for name in self.solutions:
            self.load_solution(name, getattr(pipeline, name))
        return pipeline

    def load_solution(self, name: str, module: nn.Module) -> None:
        """Puts the values of a component's solution, where it has one, in its place."""
        solution = self.solutions.get(name)
        if solution is None:
            return
        _swap_linears(module, solution)
        for key in solution.names():
            owner, _, attribute = key.rpartition(".")
            holder = module.get_submodule(owner)
            if isinstance(holder, Int8Linear) and attribute in ("qzeros", "input_scale"):
                continue  # always 128, and of what the reference does not round
            target: torch.Tensor = getattr(holder, attribute)
            target.data = solution.load_tensor(key).to(target.dtype)


def _swap_linears(module: nn.Module, solution: Checkpoint) -> None:
    """Puts linears without values in the place of 4-bit ones that a solution has in 8 bits or in floats."""
    from ...pipelines.quantized_modules import (
        Int4Linear,  # brings diffusers, two seconds that an export without check can do without
    )

    int8_linears, names = WeightSource(solution).int8_linears, solution.names()
    for name, linear in list(module.named_modules()):
        if isinstance(linear, Int4Linear):
            sizes, has_bias = (linear.in_features, linear.out_features), linear.bias is not None
            if name in int8_linears:
                module.set_submodule(name, Int8Linear(*sizes, has_bias))
            elif f"{name}.weight" in names:
                module.set_submodule(name, nn.Linear(*sizes, has_bias))


def build_golden_inputs(host: Host, ids: NDArray[np.int64], sizes: Sequence[tuple[int, int]]) -> list[GoldenInput]:
    """One case a size (height, width) in pixels."""
    noise = np.random.default_rng(0)
    shapes = [host.latent_shape(*size) for size in sizes]
    return [GoldenInput(ids, noise.standard_normal(shape, np.float32), GOLDEN_TIMESTEP) for shape in shapes]


def compute_goldens(
    reference: TorchReference, host: Host, cases: Sequence[GoldenInput], progress: Progress = no_progress
) -> list[GoldenIO]:
    """Every graph in every case, one component in memory at a time.

    Inputs are what the host makes of torch's own outputs, so that the errors of one graph are not those of another.
    """
    answers: list[GraphOutputs] = [{} for _ in cases]
    run_component = load_reference(reference.family)
    names = list(dict.fromkeys(graph.component for graph in reference.family.graphs))
    for number, name in enumerate(names):
        progress(PROGRESS_STAGE, number, len(names))
        module = reference.load_component(name)
        for case, found in zip(cases, answers, strict=True):
            found |= run_component(name, module, case, found)
    progress(PROGRESS_STAGE, len(names), len(names))
    fed = zip(cases, answers, strict=True)
    return [one for case, found in fed for one in _record_host_inputs(reference.family, host, case, found)]


def _record_host_inputs(family: Family, host: Host, case: GoldenInput, answers: GraphOutputs) -> list[GoldenIO]:
    """What the host feeds each graph when the graphs answer as torch does."""
    graph_inputs: dict[str, Arrays] = {}

    def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
        graph_inputs[name] = inputs
        return answers[name]

    run_all_graphs(host, run, case, family)
    first = {graph.name: graph.outputs[0].name for graph in family.graphs}
    return [GoldenIO(name, inputs, {first[name]: answers[name]}) for name, inputs in graph_inputs.items()]


def run_all_graphs(host: Host, run: RunGraph, case: GoldenInput, family: Family) -> None:
    """Has a host run every graph of a family that it asks by itself."""
    prompt = host.encode_prompt(run, case.ids)
    host.predict_velocity(run, case.latents, case.timestep, prompt)
    image = host.decode_latents(run, case.latents)
    if family.graph(host.encoder_graph):
        host.encode_image(run, image)


def record_pipeline_io(
    reference: TorchReference, sizes: Sequence[tuple[int, int]], progress: Progress = no_progress
) -> list[GoldenIO]:
    """Every graph at every size (height, width) in pixels, as the pipeline asks while it paints; all of it in memory.

    Raises:
        UserError: the pipeline refuses a size.
    """
    pipeline, observe = reference.load_pipeline(), load_observer(reference.family)
    goldens: list[GoldenIO] = []
    for number, (height, width) in enumerate(sizes):
        progress(PROGRESS_STAGE, number, len(sizes))
        try:
            goldens += observe(pipeline, reference.prompt, (height, width))
        except ValueError as error:
            raise UserError(f"The pipeline refuses a picture of {height}x{width}: {error}") from error
    progress(PROGRESS_STAGE, len(sizes), len(sizes))
    return goldens


def save_goldens(goldens: Sequence[GoldenIO], folder: Path) -> None:
    """Writes the first case of each graph as NAME.npz: inputs as `in.PORT`, what torch answers as `out.PORT`."""
    folder.mkdir()
    for one in {one.graph: one for one in reversed(goldens)}.values():
        arrays: dict[str, Any] = {f"in.{port}": array for port, array in one.inputs.items()}
        arrays |= {f"out.{port}": array for port, array in one.outputs.items()}
        np.savez(folder / f"{one.graph}.npz", **arrays)
