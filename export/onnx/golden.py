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

from ...checkpoint import Checkpoint
from ...errors import UserError
from ...models import Family
from ...models.host import Host, Run
from ...models.reference import Answers, Arrays, Case, Exchange, observer_of, reference_of
from ...progress import Progress, silent
from ...prompts import load_prompts
from ...sampling import assembled, load_pipeline
from ...sources import prompt_file
from .int8 import Int8Linear
from .weights import Source

STAGE = "asking torch"
TIMESTEP = 750.0  # where golden latents stand


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

    def pipeline(self) -> Any:
        """All of it, in float32."""
        pipeline = load_pipeline(self.model, torch.float32)
        for name in self.solutions:
            self.solve(name, getattr(pipeline, name))
        return pipeline

    def solve(self, name: str, module: nn.Module) -> None:
        """Puts the values of a component's solution, where it has one, in its place."""
        solution = self.solutions.get(name)
        if solution is None:
            return
        _make_room(module, solution)
        for key in solution.names():
            owner, _, attribute = key.rpartition(".")
            holder = module.get_submodule(owner)
            if isinstance(holder, Int8Linear) and attribute in ("qzeros", "input_scale"):
                continue  # always 128, and of what the reference does not round
            target: torch.Tensor = getattr(holder, attribute)
            target.data = solution.tensor(key).to(target.dtype)


def _make_room(module: nn.Module, solution: Checkpoint) -> None:
    """Puts linears without values in the place of 4-bit ones that a solution has in 8 bits or in floats."""
    from ...loading import Int4Linear  # brings diffusers, two seconds that an export without check can do without

    in_bytes, names = Source(solution).bytes, solution.names()
    for name, old in list(module.named_modules()):
        if isinstance(old, Int4Linear):
            sizes, biased = (old.in_features, old.out_features), old.bias is not None
            if name in in_bytes:
                module.set_submodule(name, Int8Linear(*sizes, biased))
            elif f"{name}.weight" in names:
                module.set_submodule(name, nn.Linear(*sizes, biased))


def cases_of(host: Host, ids: NDArray[np.int64], sizes: Sequence[tuple[int, int]]) -> list[Case]:
    """One case a size (height, width) in pixels."""
    noise = np.random.default_rng(0)
    shapes = [host.latent_shape(*size) for size in sizes]
    return [Case(ids, noise.standard_normal(shape, np.float32), TIMESTEP) for shape in shapes]


def golden(reference: Reference, host: Host, cases: Sequence[Case], progress: Progress = silent) -> list[Exchange]:
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
    fed = zip(cases, answers, strict=True)
    return [one for case, found in fed for one in _as_fed(reference.family, host, case, found)]


def _as_fed(family: Family, host: Host, case: Case, answers: Answers) -> list[Exchange]:
    """What the host feeds each graph when the graphs answer as torch does."""
    fed: dict[str, Arrays] = {}

    def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
        fed[name] = inputs
        return answers[name]

    use(host, run, case, family)
    first = {graph.name: graph.outputs[0].name for graph in family.graphs}
    return [Exchange(name, inputs, {first[name]: answers[name]}) for name, inputs in fed.items()]


def use(host: Host, run: Run, case: Case, family: Family) -> None:
    """Has a host run every graph of a family that it asks by itself."""
    caption = host.encode(run, case.ids)
    host.velocity(run, case.latents, case.timestep, caption)
    picture = host.decode(run, case.latents)
    if family.graph(host.encoder):
        host.latents(run, picture)


def observed(reference: Reference, sizes: Sequence[tuple[int, int]], progress: Progress = silent) -> list[Exchange]:
    """Every graph at every size (height, width) in pixels, as the pipeline asks while it paints; all of it in memory.

    Raises:
        UserError: the pipeline refuses a size.
    """
    pipeline, observe = reference.pipeline(), observer_of(reference.family)
    found: list[Exchange] = []
    for number, (height, width) in enumerate(sizes):
        progress(STAGE, number, len(sizes))
        try:
            found += observe(pipeline, reference.prompt, (height, width))
        except ValueError as error:
            raise UserError(f"The pipeline refuses a picture of {height}x{width}: {error}") from error
    progress(STAGE, len(sizes), len(sizes))
    return found


def save(goldens: Sequence[Exchange], folder: Path) -> None:
    """Writes the first case of each graph as NAME.npz: inputs as `in.PORT`, what torch answers as `out.PORT`."""
    folder.mkdir()
    for one in {one.graph: one for one in reversed(goldens)}.values():
        arrays: dict[str, Any] = {f"in.{port}": array for port, array in one.inputs.items()}
        arrays |= {f"out.{port}": array for port, array in one.outputs.items()}
        np.savez(folder / f"{one.graph}.npz", **arrays)
