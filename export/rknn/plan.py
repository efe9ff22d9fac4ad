"""What exporting a pipeline for a board would take, and whether the board can hold it, computed from configs alone.

Nothing is built and no weight is read: parts are cut as exporting cuts them, and weighed on tensors without data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ...errors import UserError
from ...models.graphs import Graph
from ...models.host import host_of
from ...models.npu import Part, npu_host_class, npu_of, tiled
from ...recipe import Recipe, Rknn
from ..onnx.model import Model
from ..onnx.trace import empty_component
from .cut import BITS, DOMAIN, LIVE, Limits, build_memory, build_seconds, cut, whole
from .weigh import Weighed, weigh

TARGETS = {"rk3588": ("fp16", "w8a8"), "rk3576": ("fp16", "w4a16")}  # what each multiplies
SYSTEM = 2**30  # bytes that the board's system is left: an assumption
NPU = "NPU, "
HOST = 300 * 2**20  # bytes of a process that paints, besides weights and activations: an assumption
FLOAT16, FLOAT32 = 2, 4
CODE, SCALE = 4, 32 + 4  # bits of a weight in INT4, and of a group's scale and zero point


@dataclass(frozen=True)
class Planned:
    """A part of a graph as it would be. weights, internal: bytes on the device. build: bytes; seconds."""

    name: str
    graph: str
    on_cpu: bool
    parameters: int
    weights: int
    internal: int
    build: int
    seconds: float

    @property
    def memory(self) -> int:
        return self.weights + self.internal


@dataclass(frozen=True)
class Way:
    """One way to run the pipeline on the board.

    host: bytes besides the parts. weights, internal: bytes of the parts that are there at once, at most. domains: names
    of the NPU's parts, by the memory domain that they go to. refused: why it cannot be.
    """

    name: str
    parts: tuple[Planned, ...] = ()
    host: int = 0
    weights: int = 0
    internal: int = 0
    domains: tuple[tuple[str, ...], ...] = ()
    refused: str = ""

    @property
    def peak(self) -> int:
        """Bytes of all that is there at once."""
        return SYSTEM + self.host + self.weights + self.internal

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def verdict(self) -> str:
        if self.refused:
            return f"refused: {self.refused}"
        if len(self.domains) > 1:
            return (
                f"research: its {len(self.domains)} memory domains need a process each, as rknn-toolkit-lite2 chooses "
                "none; edgepress does not do that"
            )
        return "fits"


@dataclass(frozen=True)
class Plan:
    """Ways to run a pipeline on a board, the NPU's first.

    precision, size, tokens: as the recipe exports it. memory: of the board, in bytes.
    """

    target: str
    precision: str
    memory: int
    size: tuple[int, int]
    tokens: int
    ways: tuple[Way, ...]

    def check(self) -> None:
        """Raises UserError where the board cannot hold what the recipe exports."""
        precision = TARGETS[self.target][-1] if self.precision == "auto" else self.precision
        way = next((way for way in self.ways if way.name == NPU + precision), None)
        if way is not None and way.refused:
            raise UserError(
                f"{self.target} cannot hold this pipeline ({way.name}: {way.refused}); 'edgepress export rknn --plan' "
                "shows what it can."
            )

    def check_any(self) -> None:
        """Raises UserError where the board can hold the pipeline in no way."""
        if all(way.refused for way in self.ways):
            least = min((way for way in self.ways if way.parts), key=lambda way: way.peak)
            raise UserError(
                f"{self.target} with {self.memory / 2**30:.3g} GiB cannot hold this pipeline: it takes "
                f"{least.peak / 2**30:.1f} GiB at the least ({least.name}); take a board with more (rknn.memory)."
            )


def plan(model: Model, recipe: Recipe) -> Plan:
    """The plan of a recipe that has a section `rknn`.

    Raises:
        UserError: nothing is known of how an NPU runs the family, or its configs cannot be read.
    """
    assert recipe.rknn is not None
    scales = Scales(model, recipe, recipe.rknn)
    ways = [*map(scales.on_npu, TARGETS[recipe.rknn.target]), scales.on_cpu(True), scales.on_cpu(False)]
    asked = recipe.rknn
    return Plan(asked.target, asked.precision, scales.memory, scales.size, asked.tokens, tuple(ways))


class Scales:
    """Weighs a model's parts, each kind of part once."""

    def __init__(self, model: Model, recipe: Recipe, settings: Rknn) -> None:
        self._model, self._quantization, self._settings = model, recipe.quantize, settings
        npu = npu_of(model.family)
        configs = model.configs()
        side = host_of(model.family, configs).native
        self.size = (side, side) if settings.size == "native" else settings.size
        self.memory = int(settings.memory * 2**30)
        no_embeddings = np.empty((0, 0), np.float16)  # no prompt is read
        host = npu_host_class(npu)(configs, self.size, settings.tokens, no_embeddings, settings.tile)
        self._npu, self._axes = tiled(npu, host), host.sizes
        self._usual = {graph.name for graph in npu.graphs}
        self._limits = Limits(DOMAIN, int(settings.build_memory * 2**30), settings.blocks)
        self._known: dict[tuple[str, int, bool], Weighed] = {}

    def on_npu(self, precision: str) -> Way:
        """All on the NPU but what the recipe leaves to the CPU; all stays loaded, as edgepress runs it."""
        name = NPU + precision
        parts: list[Planned] = []
        for graph in self._npu.graphs:
            is_low = self._linears(graph.component) != []
            try:
                if graph.name in self._settings.cpu:
                    folder = self._model.folder / graph.component
                    parts.append(self._int4(graph, whole(graph, self._npu.stacks.get(graph.name), folder)))
                else:
                    parts += self._cut(graph, BITS[precision if is_low else "fp16"])
            except UserError as error:
                return Way(name, refused=f"{graph.name}: {error}")
        way = Way(
            name,
            tuple(parts),
            HOST + FLOAT16 * self._embeddings(),
            sum(part.weights for part in parts),
            sum(part.internal for part in parts),
            in_domains([part for part in parts if not part.on_cpu]),
        )
        return self._judged(way)

    def on_cpu(self, keep: bool) -> Way:
        """All on the CPU in INT4, the graphs of `export onnx`; they stay loaded, or are loaded one at a time."""
        graphs = [graph for graph in self._model.family.graphs if graph.name in self._usual]
        parts = tuple(self._int4(graph, Part(graph.name, graph)) for graph in graphs)
        if keep:
            weights, internal = sum(part.weights for part in parts), max(part.internal for part in parts)
            return self._judged(Way("CPU, int4, all loaded", parts, HOST, weights, internal))
        largest = max(parts, key=lambda part: part.memory)
        return self._judged(Way("CPU, int4, one graph at a time", parts, HOST, largest.weights, largest.internal))

    def _judged(self, way: Way) -> Way:
        reason = f"{way.peak / 2**30:.1f} GiB, more than the {self.memory / 2**30:.3g} GiB of the board"
        return way if way.peak <= self.memory else replace(way, refused=reason)

    def _cut(self, graph: Graph, bits: int) -> list[Planned]:
        """Raises UserError where a part can be neither held nor built."""
        stack = self._npu.stacks.get(graph.name)
        parts = cut(graph, stack, self._model.folder / graph.component, self._axes, bits, self._limits)
        return [self._planned(graph, part, bits, part is parts[-1]) for part in parts]

    def _planned(self, graph: Graph, part: Part, bits: int, is_last: bool) -> Planned:
        found = self._weighed(graph, part, is_last)
        count = found.parameters
        return Planned(
            name=part.name,
            graph=graph.name,
            on_cpu=False,
            parameters=count,
            weights=count * bits // 8,
            internal=int(found.live * (LIVE / 2 if bits == 8 else LIVE)),
            build=build_memory(count, found.live),
            seconds=build_seconds(count),
        )

    def _int4(self, graph: Graph, part: Part) -> Planned:
        """A graph in one piece, its quantized linears in codes, embeddings as pressed and all else in float32."""
        found = weigh(part, self._model.folder / graph.component, self._axes)
        linears, tables = self._linears(graph.component), self._tables(graph.component)
        group = self._quantization.scheme.group_size
        assert group != "channel"  # the main grid's never is
        bits = {name: CODE + SCALE / group for name in found.sizes if _is_one_of(name, linears)}
        bits |= dict.fromkeys(tables, 8)
        weights = sum(size * bits.get(name, 8 * FLOAT32) / 8 for name, size in found.sizes.items())
        return Planned(graph.name, graph.name, True, found.parameters, int(weights), found.live * FLOAT32, 0, 0)

    def _tables(self, component: str) -> list[str]:
        """Embeddings that pressing puts into 8 bits."""
        known = self._model.family.component(component)
        is_small = known is not None and self._quantization.embeddings == "int8"
        return [f"{module}.weight" for module in known.embeddings] if known and is_small else []

    def _linears(self, component: str) -> list[str]:
        """Patterns of the tensors that pressing puts into codes."""
        known = self._model.family.component(component)
        if known is None or component not in self._quantization.components:
            return []
        return [f"{block.path}.{linear}.weight" for block in known.blocks for linear in block.linears]

    def _weighed(self, graph: Graph, part: Part, is_last: bool) -> Weighed:
        key = graph.name, 0 if part.blocks is None else len(part.blocks), is_last
        if key not in self._known:
            self._known[key] = weigh(part, self._model.folder / graph.component, self._axes)
        return self._known[key]

    def _embeddings(self) -> int:
        """Numbers in the table of token embeddings."""
        component, module = self._npu.embeddings
        weight: Any = empty_component(self._model.folder / component).get_submodule(module).weight
        return int(weight.numel())


def in_domains(parts: Sequence[Planned]) -> tuple[tuple[str, ...], ...]:
    """Parts by the memory domain that they go to: each into the first one that has room."""
    domains: list[list[Planned]] = []
    for part in parts:
        there = (domain for domain in domains if sum(one.memory for one in (*domain, part)) <= DOMAIN)
        domain = next(there, None)
        if domain is None:
            domains.append(domain := [])
        domain.append(part)
    return tuple(tuple(part.name for part in domain) for domain in domains)


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
