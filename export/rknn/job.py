"""All that one export is made from: read, and looked at for whatever can be wrong, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...checkpoint import Checkpoint
from ...errors import UserError
from ...int8 import Int8Rows, dequantize_rows
from ...models.graphs import Graph
from ...models.host import host_of
from ...models.npu import Npu, NpuHost, Part, npu_host_class, npu_of, tiled
from ...recipe import Rknn, Scheme
from ...runtime.rknn.chain import Link
from ...runtime.rknn.toolkit import interpreter
from ..onnx.model import Model, find, tokenizer_files
from ..onnx.weights import Source
from .cut import BITS, DOMAIN, Limits, cut, whole
from .graph import source_of

TOKENIZER = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
ASK = {
    "w4a16": "{group_size: 32, zero_point: false, narrow: true}",
    "w8a8": "{bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static}",
}


@dataclass(frozen=True)
class Solved:
    """A component's solution, on a grid that the NPU has."""

    checkpoint: Checkpoint
    scheme: Scheme


@dataclass(frozen=True)
class Job:
    """All that one export is made from.

    npu: with the graphs of the host's tiles, where it has some. graphs: the parts of each, in order. solutions: of
    components that have one for the precision. sources: of components, of their solution where there is one. floats: as
    the model has them. cpu: for the CPU.
    """

    model: Model
    npu: Npu
    host: NpuHost
    settings: Rknn
    size: tuple[int, int]
    graphs: Mapping[str, Sequence[Part]]
    solutions: Mapping[str, Solved]
    embeddings: NDArray[np.float16] = field(repr=False)
    sources: Mapping[str, Source] = field(repr=False)
    floats: Mapping[str, Source] = field(repr=False)
    cpu: Mapping[str, Source] = field(repr=False)

    @property
    def links(self) -> dict[str, list[Link]]:
        return {name: [Link(part.name, ports(part)) for part in parts] for name, parts in self.graphs.items()}

    @property
    def parts(self) -> list[Part]:
        return [part for parts in self.graphs.values() for part in parts]

    @property
    def on_npu(self) -> list[Part]:
        return [part for part in self.parts if not self.on_cpu(part)]

    @property
    def is_whole(self) -> bool:
        """Whether all graphs are there that paint a picture."""
        return len(self.graphs) == len(self.npu.graphs)

    def on_cpu(self, part: Part) -> bool:
        return any(part in self.graphs[name] for name in self.settings.cpu if name in self.graphs)

    def precision(self, part: Part) -> str:
        """That is asked for; fp16 where there is no solution."""
        return self.settings.precision if part.graph.component in self.solutions else "fp16"

    def scheme(self, part: Part) -> Scheme | None:
        """The grid of a part's weights, where they are not floats."""
        solved = self.solutions.get(part.graph.component)
        return solved.scheme if solved else None

    def write_tokenizer(self, folder: Path) -> None:
        """Writes what reads prompts into a new folder."""
        folder.mkdir(parents=True)
        for name, text in tokenizer_files(self.model, TOKENIZER).items():
            (folder / name).write_text(text, "utf-8")


def ports(part: Part) -> tuple[str, ...]:
    """The names of a part's inputs."""
    return tuple(port.name for port in part.graph.inputs)


def prepare(source: Path, output: Path, settings: Rknn, components: Sequence[str]) -> Job:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    interpreter()
    if settings.precision == "w4a16" and settings.target != "rk3576":
        raise UserError(f"{settings.target} runs no 4-bit weights on its NPU; give --precision fp16 or w8a8.")
    model = find(source)
    npu = npu_of(model.family)
    tokenizer_files(model, TOKENIZER)
    configs = model.configs()
    side = host_of(model.family, configs).native
    size = (side, side) if settings.size == "native" else settings.size
    embeddings = embedding_table(model, npu)
    host = npu_host_class(npu)(configs, size, settings.tokens, embeddings, settings.tile)
    npu = tiled(npu, host)
    chosen = _chosen(npu, settings, components)
    pressed = find(output) if (output / "model").is_dir() else model
    solutions = {name: found for name in chosen if (found := _solution(pressed, name, settings))}
    if settings.precision in ("w8a8", "w4a16") and not solutions:
        raise UserError(
            f"{pressed.folder} has no solution for {settings.precision}; quantize with one beside the model "
            f"(quantize.also: {{rknn: {ASK[settings.precision]}}})."
        )
    bits = {name: BITS.get(settings.precision, 16) if name in solutions else 16 for name in chosen}
    solved = {name: one.checkpoint for name, one in solutions.items()}
    return Job(
        model=model,
        npu=npu,
        host=host,
        settings=settings,
        size=size,
        graphs={
            graph.name: _parts(graph, model, npu, host, settings, bits[graph.component])
            for graph in npu.graphs
            if graph.component in chosen
        },
        solutions=solutions,
        embeddings=embeddings,
        sources={name: source_of(model, npu, name, solved.get(name)) for name in chosen},
        floats={name: source_of(model, npu, name) for name in chosen},
        cpu={name: source_of(pressed, npu, name) for name in chosen},
    )


def _chosen(npu: Npu, settings: Rknn, components: Sequence[str]) -> list[str]:
    """The components to export."""
    known = list(dict.fromkeys(graph.component for graph in npu.graphs))
    unknown = [name for name in components if name not in known]
    if unknown:
        raise UserError(f"There is no component {unknown[0]!r} to export; there are {', '.join(known)}.")
    absent = [name for name in settings.cpu if npu.graph(name) is None]
    if absent:
        raise UserError(f"rknn.cpu names {absent[0]!r}; graphs are {', '.join(graph.name for graph in npu.graphs)}.")
    return [name for name in known if not components or name in components]


def _parts(graph: Graph, model: Model, npu: Npu, host: NpuHost, settings: Rknn, bits: int) -> list[Part]:
    stack, folder = npu.stacks.get(graph.name), model.folder / graph.component
    if graph.name in settings.cpu:
        return [whole(graph, stack, folder)]
    limits = Limits(DOMAIN, int(settings.build_memory * 2**30), settings.blocks)
    return cut(graph, stack, folder, host.sizes, bits, limits)


def _solution(model: Model, component: str, settings: Rknn) -> Solved | None:
    """A component's solution on a grid that the precision asks for; the first by name."""
    four: Callable[[Scheme], bool] = lambda scheme: scheme.bits == 4 and scheme.narrow  # noqa: E731
    eight: Callable[[Scheme], bool] = lambda scheme: scheme.activations == "static"  # noqa: E731
    wanted: Callable[[Scheme], bool] = {
        "w4a16": four,
        "w8a8": eight,
        "fp16": lambda _: False,
        "auto": eight if settings.target == "rk3588" else four,
    }[settings.precision]
    for folder in sorted(model.folder.glob(f"solutions/*/{component}")):
        solution = Checkpoint(folder)
        scheme = Scheme.model_validate(solution.config().get("scheme", {}))
        if wanted(scheme):
            return Solved(solution, scheme)
    return None


def embedding_table(model: Model, npu: Npu) -> NDArray[np.float16]:
    """The token embeddings (words, width), as the host looks them up."""
    component, module = npu.embeddings
    checkpoint = model.checkpoint(component)
    if f"{module}.weight" in checkpoint:
        weight = checkpoint.tensor(f"{module}.weight")
    else:
        weight = dequantize_rows(Int8Rows(*(checkpoint.tensor(f"{module}.{kind}") for kind in Int8Rows._fields)))
    table: NDArray[np.float16] = weight.to(torch.float16).numpy()
    return table
