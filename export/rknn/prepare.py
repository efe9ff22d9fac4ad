"""Prepares an export: reads all that it needs, and checks it before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.base.graph import Graph
from ...models.base.npu import (
    GraphPart,
    NpuHost,
    NpuSpec,
    load_npu_host_class,
    load_npu_spec,
    with_tiled_decoder,
)
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...recipes.rknn import RknnSettings
from ...recipes.schema import Scheme
from ...runtime.rknn.part_chain import PartRef
from ..graph.external_weights import WeightSource
from ..graph.source_model import SourcePipeline
from .part_graph import make_part_weights
from .planning.partition import DOMAIN_BYTES, WEIGHT_BITS, PartLimits, make_single_part, partition_graph
from .preflight import find_solution, open_quantized, resolve_size, select_components


@dataclass(frozen=True)
class ComponentWeights:
    """The weights of a component, by where they are used.

    Attributes:
        npu: For the NPU: those of a solution, if the artifact has one for the precision, else those of the model.
        unquantized: Those of the model.
        cpu: For the CPU: those that were quantized, in INT4.
        scheme: How the solution was quantized; None: there is no solution.
    """

    npu: WeightSource
    unquantized: WeightSource
    cpu: WeightSource
    scheme: Scheme | None


@dataclass(frozen=True)
class RknnJob:
    """All that one export is made from.

    Attributes:
        model: The source pipeline.
        quantized_model: The pipeline that 4- and 8-bit weights come from: the model of the artifact, if there is one.
        npu: The graphs that the NPU runs, with those of the tiled decoder.
        host: The host of the graphs.
        settings: Settings of the recipe.
        image_size: Height and width of the images, in pixels.
        graphs: The parts of each exported graph, in order.
        weights: Weights of each exported component.
        embeddings: Token embeddings (vocabulary, width), float16.
    """

    model: SourcePipeline
    quantized_model: SourcePipeline
    npu: NpuSpec
    host: NpuHost
    settings: RknnSettings
    image_size: tuple[int, int]
    graphs: Mapping[str, Sequence[GraphPart]]
    weights: Mapping[str, ComponentWeights] = field(repr=False)
    embeddings: NDArray[np.float16] = field(repr=False)

    @property
    def part_refs(self) -> dict[str, list[PartRef]]:
        """The parts of each graph, as the runtime chains them."""
        return {
            name: [PartRef(part.name, get_input_names(part)) for part in parts] for name, parts in self.graphs.items()
        }

    @property
    def parts(self) -> list[GraphPart]:
        """All parts, in the order of the graphs."""
        return [part for parts in self.graphs.values() for part in parts]

    @property
    def npu_parts(self) -> list[GraphPart]:
        """The parts that run on the NPU."""
        return [part for part in self.parts if not self.runs_on_cpu(part)]

    @property
    def uses_quantized_model(self) -> bool:
        """Whether parts have weights of the artifact's model: a solution's on the NPU, or its own on the CPU."""
        is_beside = self.quantized_model is not self.model
        has_solution = any(component.scheme for component in self.weights.values())
        return is_beside and (has_solution or any(self.runs_on_cpu(part) for part in self.parts))

    @property
    def is_complete(self) -> bool:
        """Whether all graphs are exported that generate an image."""
        return len(self.graphs) == len(self.npu.graphs)

    def runs_on_cpu(self, part: GraphPart) -> bool:
        """Returns whether ONNX Runtime runs a part on the CPU."""
        return any(part in self.graphs[name] for name in self.settings.cpu if name in self.graphs)

    def get_precision(self, part: GraphPart) -> str:
        """Returns the precision to build a part in: that of the settings, or fp16 if there is no solution for it."""
        return self.settings.precision if self.get_scheme(part) else "fp16"

    def get_scheme(self, part: GraphPart) -> Scheme | None:
        """Returns how the weights of a part were quantized, or None if they are floats."""
        return self.weights[part.graph.component].scheme


def get_input_names(part: GraphPart) -> tuple[str, ...]:
    """Returns the names of a part's inputs, in order."""
    return tuple(port.name for port in part.graph.inputs)


def prepare_job(model: SourcePipeline, output: Path, settings: RknnSettings, components: Sequence[str] = ()) -> RknnJob:
    """Prepares an export, and checks what needs torch. Writes nothing.

    Args:
        model: The source pipeline, as `check_inputs` returned it.
        output: Artifact folder; 4- and 8-bit solutions come from its `model` folder, if there is one.
        settings: Settings of the recipe.
        components: Components to export; empty: all.

    Raises:
        UserError: The pipeline cannot be exported with these settings.
    """
    npu = load_npu_spec(model.family)
    model.read_tokenizer_files()
    model.check_weights()
    configs = model.configs
    image_size = resolve_size(model, settings)
    embeddings = load_embedding_table(model, npu)
    host = load_npu_host_class(npu)(configs, image_size, settings.max_prompt_tokens, embeddings, settings.tile)
    npu = with_tiled_decoder(npu, host)
    selected = select_components(npu, components)
    quantized_model = open_quantized(model, output)
    weights = {name: _open_weights(model, quantized_model, npu, name, settings) for name in selected}
    return RknnJob(
        model=model,
        quantized_model=quantized_model,
        npu=npu,
        host=host,
        settings=settings,
        image_size=image_size,
        graphs={
            graph.name: _partition(graph, model, npu, host, settings, weights[graph.component].scheme)
            for graph in npu.graphs
            if graph.component in weights
        },
        weights=weights,
        embeddings=embeddings,
    )


def _open_weights(
    model: SourcePipeline, quantized_model: SourcePipeline, npu: NpuSpec, component: str, settings: RknnSettings
) -> ComponentWeights:
    solution, scheme = find_solution(quantized_model, component, settings) or (None, None)
    return ComponentWeights(
        npu=make_part_weights(model, npu, component, solution),
        unquantized=make_part_weights(model, npu, component),
        cpu=make_part_weights(quantized_model, npu, component),
        scheme=scheme,
    )


def _partition(
    graph: Graph, model: SourcePipeline, npu: NpuSpec, host: NpuHost, settings: RknnSettings, scheme: Scheme | None
) -> list[GraphPart]:
    stack, folder = npu.stacks.get(graph.name), model.folder / graph.component
    if graph.name in settings.cpu:
        return [make_single_part(graph, stack, folder)]
    bits = WEIGHT_BITS.get(settings.precision, 16) if scheme else 16
    limits = PartLimits(DOMAIN_BYTES, int(settings.build_memory * 2**30), settings.blocks)
    return partition_graph(graph, stack, folder, host.axis_sizes, bits, limits)


def load_embedding_table(model: SourcePipeline, npu: NpuSpec) -> NDArray[np.float16]:
    """Loads the token embeddings that the host looks up (vocabulary, width), float16."""
    component, module = npu.token_embedding
    checkpoint = model.open_checkpoint(component)
    if f"{module}.weight" in checkpoint:
        weight = checkpoint.load_tensor(f"{module}.weight")
    else:
        rows = Int8Rows(*(checkpoint.load_tensor(f"{module}.{name}") for name in Int8Rows._fields))
        weight = dequantize_rows(rows)
    table: NDArray[np.float16] = weight.to(torch.float16).numpy()
    return table
