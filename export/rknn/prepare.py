"""All that one export is made from: read, and looked at for whatever can be wrong, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.errors import UserError
from ...models.base.graph import Graph
from ...models.base.host import load_host
from ...models.base.npu import GraphPart, NpuHost, NpuSpec, load_npu_host_class, load_npu_spec, with_tiled_decoder
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...recipes.schema import RknnSettings, Scheme
from ...runtime.rknn.part_chain import PartRef
from ...runtime.rknn.toolkit import find_interpreter
from ...storage.checkpoint import Checkpoint
from ..graph.external_weights import WeightSource
from ..graph.source_model import SourcePipeline, open_source, read_tokenizer_files
from .part_graph import make_part_weights
from .planning.partition import DOMAIN_BYTES, WEIGHT_BITS, PartLimits, make_single_part, partition_graph

TOKENIZER_FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
SCHEME_EXAMPLES = {
    "w4a16": "{group_size: 32, zero_point: false, narrow: true}",
    "w8a8": "{bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static}",
}


@dataclass(frozen=True)
class ComponentSolution:
    """A component's solution, on a grid that the NPU has."""

    checkpoint: Checkpoint
    scheme: Scheme


@dataclass(frozen=True)
class RknnJob:
    """All that one export is made from.

    npu: with the graphs of the host's tiles, where it has some. graphs: the parts of each, in order. solutions: of
    components that have one for the precision. sources: of components, of their solution where there is one. floats: as
    the model has them. cpu: for the CPU.
    """

    model: SourcePipeline
    npu: NpuSpec
    host: NpuHost
    settings: RknnSettings
    image_size: tuple[int, int]
    graphs: Mapping[str, Sequence[GraphPart]]
    solutions: Mapping[str, ComponentSolution]
    embeddings: NDArray[np.float16] = field(repr=False)
    npu_weights: Mapping[str, WeightSource] = field(repr=False)
    float_weights: Mapping[str, WeightSource] = field(repr=False)
    cpu_weights: Mapping[str, WeightSource] = field(repr=False)

    @property
    def part_refs(self) -> dict[str, list[PartRef]]:
        return {
            name: [PartRef(part.name, get_input_names(part)) for part in parts] for name, parts in self.graphs.items()
        }

    @property
    def parts(self) -> list[GraphPart]:
        return [part for parts in self.graphs.values() for part in parts]

    @property
    def npu_parts(self) -> list[GraphPart]:
        return [part for part in self.parts if not self.runs_on_cpu(part)]

    @property
    def is_complete(self) -> bool:
        """Whether all graphs are there that paint a picture."""
        return len(self.graphs) == len(self.npu.graphs)

    def runs_on_cpu(self, part: GraphPart) -> bool:
        return any(part in self.graphs[name] for name in self.settings.cpu if name in self.graphs)

    def get_precision(self, part: GraphPart) -> str:
        """That is asked for; fp16 where there is no solution."""
        return self.settings.precision if part.graph.component in self.solutions else "fp16"

    def get_scheme(self, part: GraphPart) -> Scheme | None:
        """The grid of a part's weights, where they are not floats."""
        solved = self.solutions.get(part.graph.component)
        return solved.scheme if solved else None

    def write_tokenizer(self, folder: Path) -> None:
        """Writes what reads prompts into a new folder."""
        folder.mkdir(parents=True)
        for name, text in read_tokenizer_files(self.model, TOKENIZER_FILES).items():
            (folder / name).write_text(text, "utf-8")


def get_input_names(part: GraphPart) -> tuple[str, ...]:
    """The names of a part's inputs."""
    return tuple(port.name for port in part.graph.inputs)


def prepare_job(source: Path, output: Path, settings: RknnSettings, components: Sequence[str]) -> RknnJob:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    find_interpreter()
    if settings.precision == "w4a16" and settings.target != "rk3576":
        raise UserError(f"{settings.target} runs no 4-bit weights on its NPU; give --precision fp16 or w8a8.")
    model = open_source(source)
    npu = load_npu_spec(model.family)
    read_tokenizer_files(model, TOKENIZER_FILES)
    configs = model.configs()
    native_size = load_host(model.family, configs).native_resolution
    size = (native_size, native_size) if settings.size == "native" else settings.size
    embeddings = load_embedding_table(model, npu)
    host = load_npu_host_class(npu)(configs, size, settings.max_prompt_tokens, embeddings, settings.tile)
    npu = with_tiled_decoder(npu, host)
    selected = _select_components(npu, settings, components)
    quantized_model = open_source(output) if (output / "model").is_dir() else model
    solutions = {name: found for name in selected if (found := _find_solution(quantized_model, name, settings))}
    if settings.precision in ("w8a8", "w4a16") and not solutions:
        raise UserError(
            f"{quantized_model.folder} has no solution for {settings.precision}; quantize with one beside the model "
            f"(quantize.also: {{rknn: {SCHEME_EXAMPLES[settings.precision]}}})."
        )
    bits = {name: WEIGHT_BITS.get(settings.precision, 16) if name in solutions else 16 for name in selected}
    solution_checkpoints = {name: one.checkpoint for name, one in solutions.items()}
    return RknnJob(
        model=model,
        npu=npu,
        host=host,
        settings=settings,
        image_size=size,
        graphs={
            graph.name: _partition_graph(graph, model, npu, host, settings, bits[graph.component])
            for graph in npu.graphs
            if graph.component in selected
        },
        solutions=solutions,
        embeddings=embeddings,
        npu_weights={name: make_part_weights(model, npu, name, solution_checkpoints.get(name)) for name in selected},
        float_weights={name: make_part_weights(model, npu, name) for name in selected},
        cpu_weights={name: make_part_weights(quantized_model, npu, name) for name in selected},
    )


def _select_components(npu: NpuSpec, settings: RknnSettings, components: Sequence[str]) -> list[str]:
    """The components to export."""
    known = list(dict.fromkeys(graph.component for graph in npu.graphs))
    unknown = [name for name in components if name not in known]
    if unknown:
        raise UserError(f"There is no component {unknown[0]!r} to export; there are {', '.join(known)}.")
    absent = [name for name in settings.cpu if npu.graph(name) is None]
    if absent:
        raise UserError(f"rknn.cpu names {absent[0]!r}; graphs are {', '.join(graph.name for graph in npu.graphs)}.")
    return [name for name in known if not components or name in components]


def _partition_graph(
    graph: Graph, model: SourcePipeline, npu: NpuSpec, host: NpuHost, settings: RknnSettings, bits: int
) -> list[GraphPart]:
    stack, folder = npu.stacks.get(graph.name), model.folder / graph.component
    if graph.name in settings.cpu:
        return [make_single_part(graph, stack, folder)]
    limits = PartLimits(DOMAIN_BYTES, int(settings.build_memory * 2**30), settings.blocks)
    return partition_graph(graph, stack, folder, host.axis_sizes, bits, limits)


def _find_solution(model: SourcePipeline, component: str, settings: RknnSettings) -> ComponentSolution | None:
    """A component's solution on a grid that the precision asks for; the first by name."""
    four: Callable[[Scheme], bool] = lambda scheme: scheme.bits == 4 and scheme.narrow_range  # noqa: E731
    eight: Callable[[Scheme], bool] = lambda scheme: scheme.activations == "static"  # noqa: E731
    is_suitable: Callable[[Scheme], bool] = {
        "w4a16": four,
        "w8a8": eight,
        "fp16": lambda _: False,
        "auto": eight if settings.target == "rk3588" else four,
    }[settings.precision]
    for folder in sorted(model.folder.glob(f"solutions/*/{component}")):
        solution = Checkpoint(folder)
        scheme = Scheme.model_validate(solution.load_config().get("scheme", {}))
        if is_suitable(scheme):
            return ComponentSolution(solution, scheme)
    return None


def load_embedding_table(model: SourcePipeline, npu: NpuSpec) -> NDArray[np.float16]:
    """The token embeddings (words, width), as the host looks them up."""
    component, module = npu.token_embedding
    checkpoint = model.open_checkpoint(component)
    if f"{module}.weight" in checkpoint:
        weight = checkpoint.load_tensor(f"{module}.weight")
    else:
        weight = dequantize_rows(Int8Rows(*(checkpoint.load_tensor(f"{module}.{kind}") for kind in Int8Rows._fields)))
    table: NDArray[np.float16] = weight.to(torch.float16).numpy()
    return table
