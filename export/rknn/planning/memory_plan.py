"""What exporting a pipeline for a board would take, and whether the board can hold it, computed from configs alone.

Nothing is built and no weight is read: parts are cut as exporting cuts them, and weighed on tensors without data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ....common.errors import UserError
from ....models.base.graph import Graph
from ....models.base.host import load_host
from ....models.base.npu import GraphPart, load_npu_host_class, load_npu_spec, with_tiled_decoder
from ....recipes.schema import Recipe, RknnSettings
from ...graph.source_model import SourcePipeline
from ...graph.trace import build_empty_component
from .footprint import Footprint, measure_footprint
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

TARGET_PRECISIONS = {"rk3588": ("fp16", "w8a8"), "rk3576": ("fp16", "w4a16")}  # what each multiplies
SYSTEM_BYTES = 2**30  # bytes that the board's system is left: an assumption
NPU_PREFIX = "NPU, "
HOST_PROCESS_BYTES = 300 * 2**20  # bytes of a process that paints, besides weights and activations: an assumption
FLOAT16_BYTES, FLOAT32_BYTES = 2, 4
CODE_BITS, GROUP_SCALE_BITS = 4, 32 + 4  # bits of a weight in INT4, and of a group's scale and zero point


@dataclass(frozen=True)
class PartEstimate:
    """A part of a graph as it would be. weights, internal: bytes on the device. build: bytes; seconds."""

    name: str
    graph: str
    on_cpu: bool
    parameters: int
    weight_bytes: int
    internal_bytes: int
    build_bytes: int
    build_seconds: float

    @property
    def device_bytes(self) -> int:
        return self.weight_bytes + self.internal_bytes


@dataclass(frozen=True)
class Deployment:
    """One way to run the pipeline on the board.

    host: bytes besides the parts. weights, internal: bytes of the parts that are there at once, at most. domains: names
    of the NPU's parts, by the memory domain that they go to. refused: why it cannot be.
    """

    name: str
    parts: tuple[PartEstimate, ...] = ()
    host_bytes: int = 0
    weight_bytes: int = 0
    internal_bytes: int = 0
    domains: tuple[tuple[str, ...], ...] = ()
    rejection: str = ""

    @property
    def peak_bytes(self) -> int:
        """Bytes of all that is there at once."""
        return SYSTEM_BYTES + self.host_bytes + self.weight_bytes + self.internal_bytes

    @property
    def build_seconds(self) -> float:
        return sum(part.build_seconds for part in self.parts)

    @property
    def verdict(self) -> str:
        if self.rejection:
            return f"refused: {self.rejection}"
        if len(self.domains) > 1:
            return (
                f"research: its {len(self.domains)} memory domains need a process each, as rknn-toolkit-lite2 chooses "
                "none; edgepress does not do that"
            )
        return "fits"


@dataclass(frozen=True)
class MemoryPlan:
    """Ways to run a pipeline on a board, the NPU's first.

    precision, size, tokens: as the recipe exports it. memory: of the board, in bytes.
    """

    target: str
    precision: str
    board_bytes: int
    image_size: tuple[int, int]
    max_prompt_tokens: int
    deployments: tuple[Deployment, ...]

    def require_recipe_fits(self) -> None:
        """Raises UserError where the board cannot hold what the recipe exports."""
        precision = TARGET_PRECISIONS[self.target][-1] if self.precision == "auto" else self.precision
        way = next((way for way in self.deployments if way.name == NPU_PREFIX + precision), None)
        if way is not None and way.rejection:
            raise UserError(
                f"{self.target} cannot hold this pipeline ({way.name}: {way.rejection}); 'edgepress export rknn --plan' "
                "shows what it can."
            )

    def require_any_fits(self) -> None:
        """Raises UserError where the board can hold the pipeline in no way."""
        if all(way.rejection for way in self.deployments):
            least = min((way for way in self.deployments if way.parts), key=lambda way: way.peak_bytes)
            raise UserError(
                f"{self.target} with {self.board_bytes / 2**30:.3g} GiB cannot hold this pipeline: it takes "
                f"{least.peak_bytes / 2**30:.1f} GiB at the least ({least.name}); take a board with more (rknn.memory)."
            )


def make_memory_plan(model: SourcePipeline, recipe: Recipe) -> MemoryPlan:
    """The plan of a recipe that has a section `rknn`.

    Raises:
        UserError: nothing is known of how an NPU runs the family, or its configs cannot be read.
    """
    assert recipe.rknn is not None
    scales = MemoryEstimator(model, recipe, recipe.rknn)
    ways = [
        *map(scales.estimate_npu, TARGET_PRECISIONS[recipe.rknn.target]),
        scales.estimate_cpu(True),
        scales.estimate_cpu(False),
    ]
    asked = recipe.rknn
    return MemoryPlan(
        asked.target, asked.precision, scales.board_bytes, scales.image_size, asked.max_prompt_tokens, tuple(ways)
    )


class MemoryEstimator:
    """Weighs a model's parts, each kind of part once."""

    def __init__(self, model: SourcePipeline, recipe: Recipe, settings: RknnSettings) -> None:
        self._model, self._quantization, self._settings = model, recipe.quantize, settings
        npu = load_npu_spec(model.family)
        configs = model.configs()
        side = load_host(model.family, configs).native_resolution
        self.image_size = (side, side) if settings.size == "native" else settings.size
        self.board_bytes = int(settings.memory * 2**30)
        no_embeddings = np.empty((0, 0), np.float16)  # no prompt is read
        host = load_npu_host_class(npu)(
            configs, self.image_size, settings.max_prompt_tokens, no_embeddings, settings.tile
        )
        self._npu, self._axis_sizes = with_tiled_decoder(npu, host), host.axis_sizes
        self._graph_names = {graph.name for graph in npu.graphs}
        self._limits = PartLimits(DOMAIN_BYTES, int(settings.build_memory * 2**30), settings.blocks)
        self._footprints: dict[tuple[str, int, bool], Footprint] = {}

    def estimate_npu(self, precision: str) -> Deployment:
        """All on the NPU but what the recipe leaves to the CPU; all stays loaded, as edgepress runs it."""
        name = NPU_PREFIX + precision
        parts: list[PartEstimate] = []
        for graph in self._npu.graphs:
            is_low = self._list_int4_patterns(graph.component) != []
            try:
                if graph.name in self._settings.cpu:
                    folder = self._model.folder / graph.component
                    parts.append(
                        self._estimate_int4(graph, make_single_part(graph, self._npu.stacks.get(graph.name), folder))
                    )
                else:
                    parts += self._estimate_graph(graph, WEIGHT_BITS[precision if is_low else "fp16"])
            except UserError as error:
                return Deployment(name, rejection=f"{graph.name}: {error}")
        way = Deployment(
            name,
            tuple(parts),
            HOST_PROCESS_BYTES + FLOAT16_BYTES * self._count_embeddings(),
            sum(part.weight_bytes for part in parts),
            sum(part.internal_bytes for part in parts),
            assign_domains([part for part in parts if not part.on_cpu]),
        )
        return self._reject_if_too_large(way)

    def estimate_cpu(self, keep_loaded: bool) -> Deployment:
        """All on the CPU in INT4, the graphs of `export onnx`; they stay loaded, or are loaded one at a time."""
        graphs = [graph for graph in self._model.family.graphs if graph.name in self._graph_names]
        parts = tuple(self._estimate_int4(graph, GraphPart(graph.name, graph)) for graph in graphs)
        if keep_loaded:
            weights, internal = sum(part.weight_bytes for part in parts), max(part.internal_bytes for part in parts)
            return self._reject_if_too_large(
                Deployment("CPU, int4, all loaded", parts, HOST_PROCESS_BYTES, weights, internal)
            )
        largest = max(parts, key=lambda part: part.device_bytes)
        return self._reject_if_too_large(
            Deployment(
                "CPU, int4, one graph at a time",
                parts,
                HOST_PROCESS_BYTES,
                largest.weight_bytes,
                largest.internal_bytes,
            )
        )

    def _reject_if_too_large(self, way: Deployment) -> Deployment:
        reason = f"{way.peak_bytes / 2**30:.1f} GiB, more than the {self.board_bytes / 2**30:.3g} GiB of the board"
        return way if way.peak_bytes <= self.board_bytes else replace(way, refused=reason)

    def _estimate_graph(self, graph: Graph, bits: int) -> list[PartEstimate]:
        """Raises UserError where a part can be neither held nor built."""
        stack = self._npu.stacks.get(graph.name)
        parts = partition_graph(
            graph, stack, self._model.folder / graph.component, self._axis_sizes, bits, self._limits
        )
        return [self._estimate_part(graph, part, bits, part is parts[-1]) for part in parts]

    def _estimate_part(self, graph: Graph, part: GraphPart, bits: int, is_last: bool) -> PartEstimate:
        found = self._measure_part(graph, part, is_last)
        count = found.parameters
        return PartEstimate(
            name=part.name,
            graph=graph.name,
            on_cpu=False,
            parameters=count,
            weight_bytes=count * bits // 8,
            internal_bytes=int(
                found.live_elements * (BYTES_PER_LIVE_ELEMENT / 2 if bits == 8 else BYTES_PER_LIVE_ELEMENT)
            ),
            build_bytes=estimate_build_bytes(count, found.live_elements),
            build_seconds=estimate_build_seconds(count),
        )

    def _estimate_int4(self, graph: Graph, part: GraphPart) -> PartEstimate:
        """A graph in one piece, its quantized linears in codes, embeddings as pressed and all else in float32."""
        found = measure_footprint(part, self._model.folder / graph.component, self._axis_sizes)
        linears, tables = self._list_int4_patterns(graph.component), self._list_int8_tensors(graph.component)
        group = self._quantization.scheme.group_size
        assert group != "channel"  # the main grid's never is
        bits = {
            name: CODE_BITS + GROUP_SCALE_BITS / group for name in found.weight_elements if _matches_any(name, linears)
        }
        bits |= dict.fromkeys(tables, 8)
        weights = sum(size * bits.get(name, 8 * FLOAT32_BYTES) / 8 for name, size in found.weight_elements.items())
        return PartEstimate(
            graph.name, graph.name, True, found.parameters, int(weights), found.live_elements * FLOAT32_BYTES, 0, 0
        )

    def _list_int8_tensors(self, component: str) -> list[str]:
        """Embeddings that pressing puts into 8 bits."""
        known = self._model.family.component(component)
        is_small = known is not None and self._quantization.embeddings == "int8"
        return [f"{module}.weight" for module in known.embeddings] if known and is_small else []

    def _list_int4_patterns(self, component: str) -> list[str]:
        """Patterns of the tensors that pressing puts into codes."""
        known = self._model.family.component(component)
        if known is None or component not in self._quantization.components:
            return []
        return [f"{block.path}.{linear}.weight" for block in known.blocks for linear in block.linears]

    def _measure_part(self, graph: Graph, part: GraphPart, is_last: bool) -> Footprint:
        key = graph.name, 0 if part.blocks is None else len(part.blocks), is_last
        if key not in self._footprints:
            self._footprints[key] = measure_footprint(part, self._model.folder / graph.component, self._axis_sizes)
        return self._footprints[key]

    def _count_embeddings(self) -> int:
        """Numbers in the table of token embeddings."""
        component, module = self._npu.token_embedding
        weight: Any = build_empty_component(self._model.folder / component).get_submodule(module).weight
        return int(weight.numel())


def assign_domains(parts: Sequence[PartEstimate]) -> tuple[tuple[str, ...], ...]:
    """Parts by the memory domain that they go to: each into the first one that has room."""
    domains: list[list[PartEstimate]] = []
    for part in parts:
        there = (domain for domain in domains if sum(one.device_bytes for one in (*domain, part)) <= DOMAIN_BYTES)
        domain = next(there, None)
        if domain is None:
            domains.append(domain := [])
        domain.append(part)
    return tuple(tuple(part.name for part in domain) for domain in domains)


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
