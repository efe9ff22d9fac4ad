"""Estimates what exporting and running a pipeline on a board takes, from configs alone.

Nothing is built and no weight is read. Graphs are split as the exporter splits them, and each part is measured on
tensors without data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ....common.errors import UserError
from ....models.base.graph import Graph
from ....models.base.npu import GraphPart, load_npu_spec
from ....pipelines.empty_modules import build_empty_component
from ....recipes.rknn import RknnSettings
from ....recipes.schema import QuantizationSettings, Recipe
from ...graph.source_model import SourcePipeline, open_source
from ...planning.footprint import Footprint, measure_footprint
from ..preflight import open_host, resolve_size
from ..settings import require_rknn_settings
from .memory_plan import NPU_PREFIX, TARGET_PRECISIONS, Deployment, MemoryPlan, PartEstimate
from .partition import (
    BYTES_PER_LIVE_ELEMENT,
    DOMAIN_BYTES,
    WEIGHT_BITS,
    PartLimits,
    estimate_build_bytes,
    estimate_build_seconds,
    make_single_part,
    partition_graph,
)

HOST_PROCESS_BYTES = 300 * 2**20  # of a process that generates, besides weights and activations: an assumption
FLOAT16_BYTES, FLOAT32_BYTES = 2, 4
INT4_BITS, GROUP_PARAMETER_BITS = 4, 32 + 4  # of a weight in INT4, and of a group's scale and zero point


def plan_rknn(source: Path, recipe: Recipe) -> MemoryPlan:
    """Plans the export of a pipeline: its parts, their memory and build time, and whether the board can hold them.

    Args:
        source: A diffusers folder or an artifact folder; of its components, only the configs are needed.
        recipe: A recipe with a section `rknn`.

    Returns:
        The plan; `str(plan)` is a report.

    Raises:
        UserError: The recipe has no section `rknn`, the family has no graphs for an NPU, or its configs cannot be read.
    """
    return make_memory_plan(open_source(source), recipe)


def make_memory_plan(model: SourcePipeline, recipe: Recipe) -> MemoryPlan:
    """Plans the export of an opened pipeline, as `plan_rknn` does."""
    settings = require_rknn_settings(recipe)
    estimator = MemoryEstimator(model, settings, recipe.quantize)
    deployments = (
        *map(estimator.estimate_npu, TARGET_PRECISIONS[settings.target]),
        estimator.estimate_cpu(keep_loaded=True),
        estimator.estimate_cpu(keep_loaded=False),
    )
    return MemoryPlan(
        target=settings.target,
        precision=settings.precision,
        board_bytes=estimator.board_bytes,
        image_size=estimator.image_size,
        max_prompt_tokens=settings.max_prompt_tokens,
        deployments=deployments,
    )


class MemoryEstimator:
    """Estimates deployments of a pipeline. Each kind of part is measured once.

    Args:
        model: The pipeline.
        settings: How it is exported.
        quantization: How it is quantized for the CPU.

    Attributes:
        image_size: Height and width of the images, in pixels.
        board_bytes: Memory of the board.
    """

    def __init__(self, model: SourcePipeline, settings: RknnSettings, quantization: QuantizationSettings) -> None:
        self._model, self._settings, self._quantization = model, settings, quantization
        self.image_size = resolve_size(model, settings)
        self.board_bytes = int(settings.memory * 2**30)
        self._npu, host = open_host(model, settings)
        self._axis_sizes = host.axis_sizes
        self._graph_names = {graph.name for graph in load_npu_spec(model.family).graphs}
        self._limits = PartLimits(DOMAIN_BYTES, int(settings.build_memory * 2**30), settings.blocks)
        self._footprints: dict[tuple[str, int, bool], Footprint] = {}

    def estimate_npu(self, precision: str) -> Deployment:
        """Estimates all graphs on the NPU, except those that the recipe assigns to the CPU. All parts stay loaded.

        Args:
            precision: Of the components that are quantized; the others are in fp16.
        """
        name = NPU_PREFIX + precision
        parts: list[PartEstimate] = []
        for graph in self._npu.graphs:
            is_quantized = self._list_int4_patterns(graph.component) != []
            try:
                if graph.name in self._settings.cpu:
                    folder = self._model.folder / graph.component
                    part = make_single_part(graph, self._npu.stacks.get(graph.name), folder)
                    parts.append(self._estimate_int4(graph, part))
                else:
                    parts += self._estimate_graph(graph, WEIGHT_BITS[precision if is_quantized else "fp16"])
            except UserError as error:
                return Deployment(name, rejection=f"{graph.name}: {error}")
        return self._reject_if_too_large(
            Deployment(
                name=name,
                parts=tuple(parts),
                host_bytes=HOST_PROCESS_BYTES + FLOAT16_BYTES * self._count_embeddings(),
                weight_bytes=sum(part.weight_bytes for part in parts),
                internal_bytes=sum(part.internal_bytes for part in parts),
                domains=assign_domains([part for part in parts if not part.on_cpu]),
            )
        )

    def estimate_cpu(self, keep_loaded: bool) -> Deployment:
        """Estimates all graphs on the CPU, as `edgepress export onnx` writes them in INT4.

        Args:
            keep_loaded: Whether all graphs stay loaded; otherwise one at a time.
        """
        graphs = [graph for graph in self._model.family.graphs if graph.name in self._graph_names]
        parts = tuple(self._estimate_int4(graph, GraphPart(graph.name, graph)) for graph in graphs)
        if keep_loaded:
            name = "CPU, int4, all loaded"
            weights, internal = sum(part.weight_bytes for part in parts), max(part.internal_bytes for part in parts)
        else:
            name, largest = "CPU, int4, one graph at a time", max(parts, key=lambda part: part.device_bytes)
            weights, internal = largest.weight_bytes, largest.internal_bytes
        return self._reject_if_too_large(Deployment(name, parts, HOST_PROCESS_BYTES, weights, internal))

    def _reject_if_too_large(self, deployment: Deployment) -> Deployment:
        if deployment.peak_bytes <= self.board_bytes:
            return deployment
        peak, board = deployment.peak_bytes / 2**30, self.board_bytes / 2**30
        return replace(deployment, rejection=f"needs {peak:.1f} GiB, the board has {board:.3g} GiB")

    def _estimate_graph(self, graph: Graph, bits: int) -> list[PartEstimate]:
        """Splits a graph and estimates its parts.

        Raises:
            UserError: No part is small enough for the device, or to be built.
        """
        stack, folder = self._npu.stacks.get(graph.name), self._model.folder / graph.component
        parts = partition_graph(graph, stack, folder, self._axis_sizes, bits, self._limits)
        return [self._estimate_part(graph, part, bits, part is parts[-1]) for part in parts]

    def _estimate_part(self, graph: Graph, part: GraphPart, bits: int, is_last: bool) -> PartEstimate:
        footprint = self._measure_part(graph, part, is_last)
        parameters, live_elements = footprint.parameters, footprint.live_elements
        return PartEstimate(
            name=part.name,
            graph=graph.name,
            on_cpu=False,
            parameters=parameters,
            weight_bytes=parameters * bits // 8,
            internal_bytes=int(live_elements * (BYTES_PER_LIVE_ELEMENT / 2 if bits == 8 else BYTES_PER_LIVE_ELEMENT)),
            build_bytes=estimate_build_bytes(parameters, live_elements),
            build_seconds=estimate_build_seconds(parameters),
        )

    def _estimate_int4(self, graph: Graph, part: GraphPart) -> PartEstimate:
        """Estimates a whole graph on the CPU: quantized linears in INT4, embeddings as the recipe says, and all other
        weights in float32."""
        footprint = measure_footprint(part, self._model.folder / graph.component, self._axis_sizes)
        int4_patterns, int8_tensors = (
            self._list_int4_patterns(graph.component),
            self._list_int8_tensors(graph.component),
        )
        group_size = self._quantization.scheme.group_size
        assert group_size != "channel"  # the primary scheme has groups
        bits = {
            name: INT4_BITS + GROUP_PARAMETER_BITS / group_size
            for name in footprint.weight_elements
            if any(fnmatchcase(name, pattern) for pattern in int4_patterns)
        }
        bits |= dict.fromkeys(int8_tensors, 8)
        weight_bytes = sum(
            elements * bits.get(name, 8 * FLOAT32_BYTES) / 8 for name, elements in footprint.weight_elements.items()
        )
        return PartEstimate(
            name=graph.name,
            graph=graph.name,
            on_cpu=True,
            parameters=footprint.parameters,
            weight_bytes=int(weight_bytes),
            internal_bytes=footprint.live_elements * FLOAT32_BYTES,
            build_bytes=0,
            build_seconds=0,
        )

    def _list_int8_tensors(self, component: str) -> list[str]:
        """Lists the embeddings that quantizing stores in 8 bits."""
        spec = self._model.family.component(component)
        if spec is None or self._quantization.embeddings != "int8":
            return []
        return [f"{module}.weight" for module in spec.embeddings]

    def _list_int4_patterns(self, component: str) -> list[str]:
        """Lists the patterns of the weights that quantizing stores in 4 bits."""
        spec = self._model.family.component(component)
        family = self._model.family
        if spec is None or component not in family.list_quantized(self._quantization.components):
            return []
        return [f"{block.path}.{linear}.weight" for block in spec.blocks for linear in block.linears]

    def _measure_part(self, graph: Graph, part: GraphPart, is_last: bool) -> Footprint:
        key = graph.name, 0 if part.blocks is None else len(part.blocks), is_last
        if key not in self._footprints:
            folder = self._model.folder / graph.component
            self._footprints[key] = measure_footprint(part, folder, self._axis_sizes)
        return self._footprints[key]

    def _count_embeddings(self) -> int:
        """Counts the elements of the token embeddings."""
        component, module = self._npu.token_embedding
        weight: Any = build_empty_component(self._model.folder / component).get_submodule(module).weight
        return int(weight.numel())


def assign_domains(parts: Sequence[PartEstimate]) -> tuple[tuple[str, ...], ...]:
    """Assigns each part to the first memory domain that has room for it."""
    domains: list[list[PartEstimate]] = []
    for part in parts:
        for domain in domains:
            if sum(assigned.device_bytes for assigned in (*domain, part)) <= DOMAIN_BYTES:
                domain.append(part)
                break
        else:
            domains.append([part])
    return tuple(tuple(part.name for part in domain) for domain in domains)
