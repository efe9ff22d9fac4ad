"""Golden inputs of each graph, and torch's outputs for them: components as they are, in float32.

Either the family's host makes the inputs, or they are recorded while the pipeline runs.
"""

from __future__ import annotations

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
from ...models.base.host import Host, RunGraph, run_first_outputs
from ...models.base.pipeline_observer import ENCODER, make_encoder_golden_io
from ...models.base.prompt_tokens import PromptFormat, PromptTokens, TokensByTokenizer
from ...models.base.reference import Arrays, GoldenInput, GoldenIO, GraphOutputs, load_observer, load_reference
from ...pipelines.prompt_rendering import render_prompt
from ...pipelines.sampling import load_pipeline, load_pipeline_with
from ...pipelines.tokenizer_loading import load_tokenizer
from ...prompts.prompt import Prompt
from ...prompts.reader import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...storage.checkpoint import Checkpoint
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX
from ..graph.external_weights import WeightSource
from ..graph.int8_operands import Int8Linear

PROGRESS_STAGE = "running torch"
GOLDEN_TIMESTEP = 750.0  # the timestep of golden latents


@dataclass(frozen=True)
class TorchReference:
    """The pipeline in torch that graphs are compared with.

    Attributes:
        folder: The diffusers folder.
        family: Its model family.
        solutions: Solutions that replace the weights of components, by component.
    """

    folder: Path
    family: Family
    solutions: Mapping[str, Checkpoint]

    @property
    def prompt(self) -> Prompt:
        """The first prompt of the pipeline's evaluation set."""
        return load_prompts(resolve_prompt_set(self.folder, "auto", "evaluation"))[0]

    def tokenize(self, host: Host) -> dict[str, PromptTokens]:
        """Returns the tokens of the prompt by tokenizer, as the pipeline computes them."""
        return {prompt_format.tokenizer: self._tokenize(prompt_format) for prompt_format in host.prompt_formats}

    def _tokenize(self, prompt_format: PromptFormat) -> PromptTokens:
        tokenizer = load_tokenizer(self.folder, prompt_format.tokenizer)
        encoding = tokenizer(
            render_prompt(tokenizer, prompt_format, self.prompt.prompt),
            truncation=True,
            max_length=prompt_format.max_tokens,
            padding="max_length" if prompt_format.is_padded else False,
        )
        pads = len(encoding.input_ids) - sum(encoding.attention_mask)
        return PromptTokens(np.array(encoding.input_ids, np.int64), pads)

    def load_component(self, name: str) -> nn.Module:
        """Loads one component in float32, without the others."""
        index = read_json_object(self.folder / MODEL_INDEX)
        omitted = {component: None for component in index if not component.startswith("_") and component != name}
        module: nn.Module = getattr(load_pipeline_with(self.folder, torch.float32, omitted), name)
        self.load_solution(name, module)
        return module

    def load_pipeline(self) -> Any:
        """Loads the whole pipeline in float32."""
        pipeline = load_pipeline(self.folder, torch.float32)
        for name in self.solutions:
            self.load_solution(name, getattr(pipeline, name))
        return pipeline

    def load_solution(self, name: str, module: nn.Module) -> None:
        """Replaces a component's weights by those of its solution, if it has one, in place."""
        solution = self.solutions.get(name)
        if solution is None:
            return
        _swap_linears(module, solution)
        for key in solution.names():
            owner, _, attribute = key.rpartition(".")
            holder = module.get_submodule(owner)
            if isinstance(holder, Int8Linear) and attribute in ("qzeros", "input_scale"):
                continue  # always 128, and for activations, which the reference does not quantize
            target: torch.Tensor = getattr(holder, attribute)
            target.data = solution.load_tensor(key).to(target.dtype)


def _swap_linears(module: nn.Module, solution: Checkpoint) -> None:
    """Replaces INT4 linear layers that a solution has in INT8 or in floats by ones without values, in place."""
    from ...pipelines.quantized_modules import Int4Linear  # imports diffusers: two seconds that only a check needs

    int8_linears, names = WeightSource(solution).int8_linears, solution.names()
    for name, linear in list(module.named_modules()):
        if isinstance(linear, Int4Linear):
            sizes, has_bias = (linear.in_features, linear.out_features), linear.bias is not None
            if name in int8_linears:
                module.set_submodule(name, Int8Linear(*sizes, has_bias))
            elif f"{name}.weight" in names:
                module.set_submodule(name, nn.Linear(*sizes, has_bias))


def build_golden_inputs(host: Host, tokens: TokensByTokenizer, sizes: Sequence[tuple[int, int]]) -> list[GoldenInput]:
    """Returns a golden input for each size (height, width) in pixels.

    Args:
        host: The family's host.
        tokens: Tokens of the prompt, by tokenizer.
        sizes: Image sizes.
    """
    noise = np.random.default_rng(0)
    shapes = [host.latent_shape(*size) for size in sizes]
    return [GoldenInput(tokens, noise.standard_normal(shape, np.float32), GOLDEN_TIMESTEP) for shape in shapes]


def compute_goldens(
    reference: TorchReference, host: Host, inputs: Sequence[GoldenInput], progress: Progress = no_progress
) -> list[GoldenIO]:
    """Computes inputs and outputs of every graph for every golden input, with one component in memory at a time.

    The host makes each graph's inputs from torch's own outputs, so errors of one graph do not reach the next.
    """
    outputs: list[GraphOutputs] = [{} for _ in inputs]
    run_component = load_reference(reference.family)
    names = list(dict.fromkeys(graph.component for graph in reference.family.graphs))
    for number, name in enumerate(names):
        progress(PROGRESS_STAGE, number, len(names))
        module = reference.load_component(name)
        for golden_input, graph_outputs in zip(inputs, outputs, strict=True):
            graph_outputs |= run_component(name, module, golden_input, graph_outputs)
    progress(PROGRESS_STAGE, len(names), len(names))
    return [
        golden
        for golden_input, graph_outputs in zip(inputs, outputs, strict=True)
        for golden in _record_host_inputs(reference.family, host, golden_input, graph_outputs)
    ]


def _record_host_inputs(family: Family, host: Host, golden_input: GoldenInput, outputs: GraphOutputs) -> list[GoldenIO]:
    """Returns what the host feeds each graph when graphs return torch's outputs."""
    graph_inputs: dict[str, Arrays] = {}

    def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
        graph_inputs[name] = inputs
        return outputs[name]

    run_all_graphs(host, run_first_outputs(run), golden_input, family)
    ports = {graph.name: graph.outputs[0].name for graph in family.graphs}
    return [GoldenIO(name, inputs, {ports[name]: outputs[name]}) for name, inputs in graph_inputs.items()]


def run_all_graphs(host: Host, run: RunGraph, golden_input: GoldenInput, family: Family) -> None:
    """Has a host run every graph of its family that it uses on its own, once."""
    prompt = host.encode_prompt(run, golden_input.tokens)
    host.predict_velocity(run, golden_input.latents, golden_input.timestep, prompt)
    image = host.decode_latents(run, golden_input.latents)
    if host.encoder_graph and family.graph(host.encoder_graph):
        host.encode_image(run, image, np.zeros_like(golden_input.latents))


def record_pipeline_io(
    reference: TorchReference, sizes: Sequence[tuple[int, int]], progress: Progress = no_progress
) -> list[GoldenIO]:
    """Records inputs and outputs of every graph while the whole pipeline generates an image of each size.

    Args:
        reference: The pipeline.
        sizes: Heights and widths in pixels.
        progress: Called with images.

    Raises:
        UserError: The pipeline does not accept a size.
    """
    pipeline, observe = reference.load_pipeline(), load_observer(reference.family)
    goldens: list[GoldenIO] = []
    for number, (height, width) in enumerate(sizes):
        progress(PROGRESS_STAGE, number, len(sizes))
        try:
            observed = observe(pipeline, reference.prompt.prompt, (height, width))
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise UserError(
                f"The pipeline does not support images of {height}x{width}: {reason}. Choose another size."
            ) from error
        if reference.family.graph(ENCODER):
            observed.append(make_encoder_golden_io(pipeline.vae, observed))
        goldens += observed
    progress(PROGRESS_STAGE, len(sizes), len(sizes))
    return goldens


def save_goldens(goldens: Sequence[GoldenIO], folder: Path) -> None:
    """Writes the first inputs and outputs of each graph as NAME.npz, with the keys `in.PORT` and `out.PORT`."""
    folder.mkdir()
    for golden in {golden.graph: golden for golden in reversed(goldens)}.values():
        arrays: dict[str, Any] = {f"in.{port}": array for port, array in golden.inputs.items()}
        arrays |= {f"out.{port}": array for port, array in golden.outputs.items()}
        np.savez(folder / f"{golden.graph}.npz", **arrays)
