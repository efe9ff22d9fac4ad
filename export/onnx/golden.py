"""Golden inputs of each graph, and what torch answers them: component classes as they are, in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...checkpoint import Checkpoint
from ...models import Family
from ...models.host import Host
from ...models.reference import Answers, Case, reference_of
from ...progress import Progress, silent
from ...prompts import load_prompts
from ...sampling import assembled
from ...sources import prompt_file

Inputs = dict[str, NDArray[Any]]
STAGE = "asking torch"
TIMESTEP = 750.0  # where golden latents stand


@dataclass(frozen=True)
class Golden:
    """A graph's inputs, and the first output that torch gives for them."""

    graph: str
    inputs: Inputs
    output: NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """The pipeline folder that graphs are held against; a component's solution takes the place of what it replaces."""

    model: Path
    family: Family
    solutions: Mapping[str, Checkpoint]

    @property
    def prompt(self) -> str:
        """The first prompt that the pipeline is evaluated with."""
        return load_prompts(prompt_file(self.model, "own", "evaluation"))[0].prompt

    def ids(self, host: Host) -> NDArray[np.int64]:
        """The prompt's tokens, as the pipeline makes them."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model / "tokenizer")
        said = [{"role": "user", "content": self.prompt}]
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, **host.template)
        return np.array(tokenizer(text, truncation=True, max_length=host.max_tokens).input_ids, np.int64)

    def component(self, name: str) -> nn.Module:
        """One component in float32, the others left on disk."""
        index = json.loads((self.model / "model_index.json").read_text("utf-8"))
        others = {part: None for part in index if not part.startswith("_") and part != name}
        module: nn.Module = getattr(assembled(self.model, torch.float32, others), name)
        self.solve(name, module)
        return module

    def solve(self, name: str, module: nn.Module) -> None:
        """Puts the values of a component's solution, where it has one, in its place."""
        solution = self.solutions.get(name)
        for key in solution.names() if solution else []:
            owner, _, attribute = key.rpartition(".")
            target: torch.Tensor = getattr(module.get_submodule(owner), attribute)
            assert solution is not None
            target.data = solution.tensor(key).to(target.dtype)


def cases_of(host: Host, ids: NDArray[np.int64], sizes: Sequence[tuple[int, int]]) -> list[Case]:
    """One case a size (height, width) in pixels."""
    noise = np.random.default_rng(0)
    shapes = [host.latent_shape(*size) for size in sizes]
    return [Case(ids, noise.standard_normal(shape, np.float32), TIMESTEP) for shape in shapes]


def golden(reference: Reference, host: Host, cases: Sequence[Case], progress: Progress = silent) -> list[Golden]:
    """Every graph in every case, one component in memory at a time.

    Inputs are what the host makes of torch's own outputs, so that the errors of one graph are not those of another.
    """
    answers: list[Answers] = [{} for _ in cases]
    ask = reference_of(reference.family)
    names = list(dict.fromkeys(graph.component for graph in reference.family.graphs))
    for number, name in enumerate(names):
        progress(STAGE, number, len(names))
        module = reference.component(name)
        for case, found in zip(cases, answers, strict=True):
            found |= ask(name, module, case, found)
    progress(STAGE, len(names), len(names))
    return [one for case, found in zip(cases, answers, strict=True) for one in _as_fed(host, case, found)]


def _as_fed(host: Host, case: Case, answers: Answers) -> Iterator[Golden]:
    """What the host feeds each graph when the graphs answer as torch does."""
    fed: dict[str, Inputs] = {}

    def run(name: str, inputs: Inputs) -> NDArray[np.float32]:
        fed[name] = inputs
        return answers[name]

    caption = host.encode(run, case.ids)
    host.velocity(run, case.latents, case.timestep, caption)
    host.decode(run, case.latents)
    return (Golden(name, inputs, answers[name]) for name, inputs in fed.items())


def save(goldens: Sequence[Golden], folder: Path) -> None:
    """Writes the first case of each graph as NAME.npz: inputs as `in.PORT`, what torch answers as `out`."""
    folder.mkdir()
    for one in {one.graph: one for one in reversed(goldens)}.values():
        arrays: dict[str, Any] = {"out": one.output} | {f"in.{key}": array for key, array in one.inputs.items()}
        np.savez(folder / f"{one.graph}.npz", **arrays)
