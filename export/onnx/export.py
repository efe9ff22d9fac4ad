"""From a pipeline folder to the graphs, weights and words that a device runs, published as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from ... import artifact
from ...checkpoint import Checkpoint, write_json, written
from ...errors import UserError
from ...models.graphs import Graph
from ...models.host import Host, host_of
from ...progress import Progress, silent
from ...recipe import Export
from .golden import Reference, cases_of, golden, save
from .int4 import blocks, nbits
from .lower import OPSETS, lower
from .model import Model, find, tokenizer_files
from .parity import TOLERANCES, Graphs, Parity, check, measure
from .passes.embedding import embedding
from .passes.linear_dequantize import OPSET as DEQUANTIZE_OPSET
from .passes.linear_dequantize import linear_dequantize
from .passes.linear_int4 import linear_int4, set_accuracy_level
from .picture import paint
from .trace import trace
from .weights import Source, attach

SCHEMA_VERSION = 1
EXACT = ".exact.onnx"  # of a graph that is written for parity alone
TOKENIZER = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Exported:
    """What exporting left: the published folder, and how far the graphs are from torch (empty: not looked at)."""

    folder: Path
    parity: dict[str, Parity]


def export(
    source: Path,
    output: Path,
    settings: Export,
    sizes: Sizes = (),
    progress: Progress = silent,
    check: bool = True,
) -> Exported:
    """Exports the pipeline in `source` to `output/onnx`; an older export there is replaced, or else left as it is.

    Args:
        source: a diffusers folder, pressed or not, or an artifact folder.
        sizes: (height, width) in pixels of the pictures that parity is looked at with; none: the model's native size.
        check: whether to hold the graphs against torch, which takes the memory of running both.

    Raises:
        UserError: bad input (before anything is written), weights that changed since they were quantized, graphs that
            are further from torch than the precision may be.
    """
    job = prepare(source, output, settings, sizes)
    with artifact.locked(output) as work:
        stage = work / "export-onnx"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        try:
            found = job.write(stage, progress, check)
            artifact.publish(stage, output / "onnx")
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return Exported(output / "onnx", found)


@dataclass(frozen=True)
class Job:
    """All that one export is made from; `solutions` are the symmetric ones that take the place of the model's own."""

    model: Model
    host: Host
    settings: Export
    sizes: Sizes
    solutions: dict[str, Checkpoint]
    sources: dict[str, Source] = field(repr=False)

    @property
    def in_integers(self) -> bool:
        """Whether graphs multiply in 8-bit integers, which costs what parity must tell apart from mistakes."""
        return bool(self.flavour == "ort" and self.settings.accuracy_level)

    @property
    def flavour(self) -> str | None:
        """That of the 4-bit products, where there are any."""
        return self.settings.flavour if self.settings.precision == "int4" else None

    def write(self, stage: Path, progress: Progress, check: bool) -> dict[str, Parity]:
        """Everything but publishing."""
        sources = self.model.described(progress)
        graphs = self._graphs(stage, progress)
        _write_tokenizer(self.model, stage / "tokenizer")
        found = self._parity(stage, progress) if check else {}
        for file in stage.glob(f"*{EXACT}"):
            file.unlink()
        content = self._words(graphs) | {
            "sources": [file.model_dump() for file in sources],
            "parity": {name: asdict(one) for name, one in found.items()},
        }
        write_json(content, stage / "pipeline.json")
        return found

    def _parity(self, stage: Path, progress: Progress) -> dict[str, Parity]:
        """How far the graphs are from torch: by themselves, and where they multiply in integers also as they would be
        without.

        Raises:
            UserError: further than the precision may be, integers left out.
        """
        reference = Reference(self.model.folder, self.model.family, self.solutions)
        ids = reference.ids(self.host)
        goldens = golden(reference, self.host, cases_of(self.host, ids, self.sizes), progress)
        save(goldens, stage / "golden")
        painted = paint(reference, self.host, ids, self.sizes[0])
        ends = {"exact": EXACT, "exported": ".onnx"} if self.in_integers else {"exact": ".onnx"}
        found = {}
        for name, end in ends.items():
            files = {graph.name: stage / f"{graph.name}{end}" for graph in self.model.family.graphs}
            found[name] = measure(goldens, painted, self.host, Graphs(files))
        check(found["exact"], TOLERANCES[self.settings.precision])
        return found

    def _graphs(self, stage: Path, progress: Progress) -> dict[str, ir.Model]:
        """Writes every graph and the weights of every component; gives the graphs by name."""
        graphs = self.model.family.graphs
        traced: dict[str, ir.Model] = {}
        for number, graph in enumerate(graphs):
            progress("tracing", number, len(graphs))
            traced[graph.name] = self._traced(graph)
        progress("tracing", len(graphs), len(graphs))
        for component, source in self.sources.items():
            models = [traced[graph.name] for graph in graphs if graph.component == component]
            attach(models, source, stage, component, progress)
        for name, model in traced.items():
            self._save(model, stage / f"{name}.onnx")
        return traced

    def _traced(self, graph: Graph) -> ir.Model:
        """A graph without weights, as the device runs it."""
        source, settings = self.sources[graph.component], self.settings
        dtype = torch.float16 if settings.precision == "fp16" else torch.float32
        model = trace(graph, self.model.folder / graph.component, dtype)
        known = self.model.family.component(graph.component)
        for name in known.embeddings if known else ():
            embedding(model, name, source.dtype_of_rows(name))
        if self.flavour == "ort":
            linear_int4(model, source.packed, settings.accuracy_level)
        elif self.flavour == "qdq":
            linear_dequantize(model, source.packed)
        return lower(model, settings.opset, settings.flavour == "ort")

    def _save(self, model: ir.Model, file: Path) -> None:
        """Writes a graph; where it multiplies in integers, also one that does not, for parity."""
        if self.in_integers:
            set_accuracy_level(model, 0)
            _write_graph(model, file.with_suffix(EXACT))
            set_accuracy_level(model, self.settings.accuracy_level)
        _write_graph(model, file)

    def _words(self, graphs: dict[str, ir.Model]) -> dict[str, Any]:
        """What pipeline.json says besides sources and parity."""
        return {
            "schema_version": SCHEMA_VERSION,
            "family": self.model.family.pipeline,
            **self.settings.model_dump(mode="json"),
            "graphs": {
                graph.name: {
                    "file": f"{graph.name}.onnx",
                    "component": graph.component,
                    "inputs": [_port(value) for value in graphs[graph.name].graph.inputs],
                    "outputs": [_port(value) for value in graphs[graph.name].graph.outputs],
                }
                for graph in self.model.family.graphs
            },
            "host": self.model.configs(),
            "sizes": [list(size) for size in self.sizes],
        }


def prepare(source: Path, output: Path, settings: Export, sizes: Sizes) -> Job:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    if output.resolve().is_relative_to(source.resolve()) and (source / "model_index.json").exists():
        raise UserError(f"The output {output} lies inside the model folder {source}; give another --output.")
    _check_opset(settings)
    model = find(source)
    host = host_of(model.family, model.configs())
    sizes = sizes or [(host.native, host.native)]
    for size in sizes:
        host.latent_shape(*size)
    tokenizer_files(model, TOKENIZER)
    components = list(dict.fromkeys(graph.component for graph in model.family.graphs))
    signed = settings.precision == "int4" and settings.flavour == "qdq"
    plain = {name: Source(model.checkpoint(name)) for name in components}
    if settings.precision == "int4" and not any(part.packed for part in plain.values()):
        raise UserError(
            f"{model.folder} has no 4-bit weights; press it with 'edgepress quantize', or give --precision fp32."
        )
    asking = [name for name, part in plain.items() if signed and part.has_zero_points]
    solutions = {name: _symmetric(model, name) for name in asking}
    operands = blocks if signed else nbits
    sources = {name: Source(model.checkpoint(name), solutions.get(name), operands) for name in components}
    return Job(model, host, settings, sizes, solutions, sources)


def _symmetric(model: Model, component: str) -> Checkpoint:
    solution = model.solution(component)
    if solution is None:
        raise UserError(
            f"The {component} in {model.folder} has zero points, which the flavour qdq has no room for; quantize with "
            "a symmetric solution beside it (quantize.also: {qdq: {group_size: 128, zero_point: false}})."
        )
    return solution


def _check_opset(settings: Export) -> None:
    """Raises UserError where the opset is not one that can be written, or lacks what the flavour needs."""
    least = DEQUANTIZE_OPSET if settings.precision == "int4" and settings.flavour == "qdq" else min(OPSETS)
    if not least <= settings.opset <= max(OPSETS):
        raise UserError(
            f"Opset {settings.opset} cannot be exported with {settings.precision} and the flavour "
            f"{settings.flavour}; give --opset {least} to {max(OPSETS)}."
        )


def _port(value: ir.Value) -> dict[str, Any]:
    """An input or output in pipeline.json's words: its name, dtype, and axes by size or name."""
    assert value.dtype is not None
    assert value.shape is not None
    axes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": value.name, "dtype": value.dtype.numpy().name, "shape": axes}


def _write_graph(model: ir.Model, file: Path) -> None:
    written(file, lambda new: ir.save(model, new, format="protobuf"))


def _write_tokenizer(model: Model, folder: Path) -> None:
    folder.mkdir()
    for name, text in tokenizer_files(model, TOKENIZER).items():
        (folder / name).write_text(text, "utf-8")
