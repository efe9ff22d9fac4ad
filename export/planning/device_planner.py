"""What the graphs of a pipeline take on a device, of modules without data: nothing is built, and no weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...models.base.family import Component
from ...models.base.host import load_host
from ...pipelines.empty_modules import build_empty_component
from ...pipelines.linear_selection import find_repeated_blocks, select_convolutions, select_linears
from ...recipes.hardware import Hardware
from ...recipes.schema import Recipe
from ..graph.source_model import SourcePipeline
from .cost_model import (
    ACTIVATION_FACTOR,
    CONVOLUTION_FACTOR,
    CONVOLUTION_WEIGHT_FACTOR,
    CostModel,
    WeightKind,
)
from .device_plan import DevicePlan, GraphEstimate, Verdict
from .graph_meter import DECODING, DENOISING, MeteredGraph, meter_graphs

TILE_SIZE = 256  # pixels of the tiles that are recommended for decoding


@dataclass(frozen=True)
class DevicePlanner:
    """Plans one pipeline on one device, in several ways."""

    model: SourcePipeline
    recipe: Recipe
    hardware: Hardware
    memory_bytes: int

    def plan(self, size: tuple[int, int], recipe: Recipe) -> DevicePlan:
        hardware, steps = self.hardware, recipe.presets.quality.steps
        tokens, costs = recipe.export.max_prompt_tokens, CostModel(recipe.export, recipe.quantize)
        metered = meter_graphs(self.model, size, tokens)
        kinds = {name: self._list_kinds(name) for name in dict.fromkeys(entry.graph.component for entry in metered)}
        disk: dict[str, dict[str, float]] = {name: {} for name in kinds}
        for entry in metered:
            names = kinds[entry.graph.component]
            disk[entry.graph.component] |= {
                name: elements * costs.count_stored_bits(names.get(name, "float")) / 8
                for name, elements in entry.footprint.weight_elements.items()
            }
        return DevicePlan(
            device=recipe.device,
            pipeline_class=self.model.family.pipeline_class,
            precision=recipe.export.precision,
            size=size,
            steps=steps,
            prompt_tokens=tokens,
            memory_bytes=self.memory_bytes,
            usable_bytes=int(self.memory_bytes - hardware.reserved * 2**30),
            process_bytes=int(hardware.process * 2**30),
            component_disk_bytes={name: int(sum(weights.values())) for name, weights in disk.items()},
            graphs=tuple(self._estimate(entry, kinds[entry.graph.component], costs, steps) for entry in metered),
            bandwidth=None if hardware.bandwidth is None else hardware.bandwidth * 1e9,
        )

    def _list_kinds(self, component: str) -> dict[str, WeightKind]:
        """What the weights of a component that is quantized are, by name; others are floats."""
        family, quantization = self.model.family, self.recipe.quantize
        if component not in family.list_quantized(quantization.components):
            return {}
        description = family.component(component) or Component(component, "")
        kinds: dict[str, WeightKind] = {f"{module}.weight": "embedding" for module in description.embeddings}
        module = build_empty_component(self.model.folder / component)
        convolutions = select_convolutions(module, find_repeated_blocks(module))
        kinds |= dict.fromkeys((f"{path}.weight" for path in convolutions), "convolution")
        if description.role == "other":
            return kinds
        selected = select_linears(module, description).quantized
        return kinds | dict.fromkeys((f"{path}.weight" for path in selected), "linear")

    def _estimate(
        self, entry: MeteredGraph, kinds: dict[str, WeightKind], costs: CostModel, steps: int
    ) -> GraphEstimate:
        footprint, runs = entry.footprint, steps if entry.phase == DENOISING else 1
        if entry.graph in self.model.family.optional_graphs:  # only images that start from another one run it
            runs = 0
        elements = footprint.weight_elements.items()
        stored = sum(count * costs.count_stored_bits(kinds.get(name, "float")) for name, count in elements) / 8
        resident = 0.0
        for name, count in elements:
            copies = CONVOLUTION_WEIGHT_FACTOR if name in footprint.convolution_weights else 1
            resident += copies * count * costs.count_resident_bits(kinds.get(name, "float")) / 8
        convolves = footprint.convolution_flops > footprint.linear_flops
        factor = CONVOLUTION_FACTOR if convolves else ACTIVATION_FACTOR
        return GraphEstimate(
            name=entry.graph.name,
            component=entry.graph.component,
            phase=entry.phase,
            runs=runs,
            disk_bytes=int(stored),
            weight_bytes=int(resident),
            activation_bytes=int(footprint.live_elements * costs.float_bytes * factor),
            linear_flops=footprint.linear_flops,
            other_flops=footprint.other_flops,
            floor_seconds=self._find_floor(entry, costs, stored),
        )

    def _find_floor(self, entry: MeteredGraph, costs: CostModel, weight_bytes: float) -> float | None:
        """The roofline of one run: operations at peak rates, or weights at the memory's bandwidth."""
        peak, footprint = self.hardware.peak, entry.footprint
        linear_rate, float_rate = costs.find_linear_rate(peak), costs.find_float_rate(peak)
        if linear_rate is None or float_rate is None or self.hardware.bandwidth is None:
            return None
        computing = (footprint.linear_flops / linear_rate + footprint.other_flops / float_rate) / 1e12
        return max(computing, weight_bytes / (self.hardware.bandwidth * 1e9))

    # ------------------------------------------------------------ what would make it fit

    def find_remedies(self, plan: DevicePlan, recipe: Recipe) -> Iterator[str]:
        """Finds out what would make the pipeline fit. Yields sentences."""
        height, width = plan.size
        has_tiles = load_host(self.model.family, self.model.configs).decoder_stages is not None
        if has_tiles and _with_tiles(plan).verdict is not Verdict.DOES_NOT_FIT:
            yield f"It would fit if images are decoded in tiles: 'edgepress generate --tile {TILE_SIZE}'."
        multiple = 2 * 2**4
        smaller = height // 2 // multiple * multiple, width // 2 // multiple * multiple
        if min(smaller) > 0 and self.plan(smaller, recipe).verdict is not Verdict.DOES_NOT_FIT:
            yield f"It would fit with images of {smaller[0]}x{smaller[1]}."
        if recipe.export.precision != "int4":
            int4 = recipe.export.model_copy(update={"precision": "int4"})
            if self.plan(plan.size, recipe.model_copy(update={"export": int4})).verdict is not Verdict.DOES_NOT_FIT:
                yield "It would fit in INT4 (export.precision: int4)."
        needed = plan.phased_bytes + int(self.hardware.reserved * 2**30)
        yield f"It needs a device with {-(-needed // 2**30)} GiB of memory."


def _with_tiles(plan: DevicePlan) -> DevicePlan:
    """The plan with the decoder's activations of one tile; tiles and what is between them are as large as the image."""
    pixels = plan.size[0] * plan.size[1]
    share = min(1.0, TILE_SIZE**2 / pixels)
    graphs = tuple(
        replace(graph, activation_bytes=int(graph.activation_bytes * share)) if graph.phase == DECODING else graph
        for graph in plan.graphs
    )
    return replace(plan, graphs=graphs)
