"""From a pipeline folder to the graphs, weights and words that a device runs, published as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from ...models.reference import Exchange
from ...progress import Progress, silent
from ...recipe import Export
from ...runtime.buckets import Bucket, Shaped, pick
from ...sampling import native_size
from .buckets import Axes, asked, dynamic, fixed, shaped
from .engines import unfit, write_script
from .golden import Reference, cases_of, golden, observed, save
from .int4 import blocks, nbits
from .kept import traced
from .lower import OPSETS, lower
from .model import Model, find, tokenizer_files, tokenizer_folders
from .overflow import overflowing
from .parity import IN_INTEGERS, TOLERANCES, Graphs, Parity, check, measure, rounding_tolerance
from .passes.embedding import embedding
from .passes.fixed_shapes import fixed_shapes
from .passes.linear_dequantize import OPSET as DEQUANTIZE_OPSET
from .passes.linear_dequantize import linear_dequantize
from .passes.linear_int4 import linear_int4, set_accuracy_level
from .passes.linear_int8 import linear_int8, round_activations
from .picture import Painted, paint
from .weights import Source, attach

SCHEMA_VERSION = 1
EXACT = ".exact.onnx"  # of a graph that is written for parity alone
TOKENIZER = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Exported:
    """What exporting left: the published folder, and how far the graphs are from torch (empty: not looked at).

    without_script: why there is no script for TensorRT, though the flavour is its; else empty.
    """

    folder: Path
    parity: dict[str, Parity]
    without_script: str = ""


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
    return Exported(output / "onnx", found, job.without_script)


@dataclass(frozen=True)
class Job:
    """All that one export is made from; `solutions` are those that take the place of the model's own, by component.

    host: of the family, where it has one.
    """

    model: Model
    host: Host | None
    settings: Export
    sizes: Sizes
    solutions: dict[str, Checkpoint]
    sources: dict[str, Source] = field(repr=False)

    @property
    def in_integers(self) -> bool:
        """Whether graphs multiply in 8-bit integers, which costs what parity must tell apart from mistakes."""
        return self._in_bytes or bool(self.settings.precision == "int4" and self.settings.accuracy_level)

    @property
    def _in_bytes(self) -> bool:
        return self.settings.precision == "w8a8"

    @property
    def in_halves(self) -> bool:
        """Whether floats are float16."""
        asked = self.settings.floats if self.settings.precision == "int4" else self.settings.precision
        return asked == "fp16"

    @property
    def flavour(self) -> str | None:
        """That of the 4-bit products, where there are any."""
        return self.settings.flavour if self.settings.precision == "int4" else None

    @property
    def without_script(self) -> str:
        """Why TensorRT cannot read what it would be given, in a sentence; empty where it can."""
        sources = self.sources.values() if self.flavour == "qdq" else ()
        return unfit(linear.block for source in sources for linear in source.packed.values())

    def write(self, stage: Path, progress: Progress, check: bool) -> dict[str, Parity]:
        """Everything but publishing."""
        with ThreadPoolExecutor(1) as pool:
            described = pool.submit(self.model.described, progress)  # beside tracing and writing, which take longer
            models = self._models(progress)
            asked = self._shapes(models)
            buckets = fixed(asked) if self.settings.shapes == "fixed" else dynamic(models)
            self._write_graphs(models, buckets, stage, progress)
            sources = described.result()
        _write_tokenizers(self.model, stage)
        found = self._parity(shaped(models, buckets), stage, progress) if check else {}
        for file in stage.glob(f"*{EXACT}"):
            file.unlink()
        if asked and self.settings.flavour == "qdq" and not self.without_script:
            write_script(shaped(models, buckets), asked, stage)
        content = self._words(models, buckets) | {
            "sources": [file.model_dump() for file in sources],
            "parity": {name: asdict(one) for name, one in found.items()},
        }
        write_json(content, stage / "pipeline.json")
        return found

    def _shapes(self, models: dict[str, ir.Model]) -> dict[str, list[Axes]]:
        """The axes that graphs are asked with, where there is a host who knows."""
        if self.host is None:
            return {}
        return asked(self.host, self.model.family, models, self.sizes, self.settings.tokens)

    def _parity(self, graphs: dict[str, Shaped], stage: Path, progress: Progress) -> dict[str, Parity]:
        """How far the graphs are from torch: by themselves, and where they multiply in integers also as they would be
        without.

        Raises:
            UserError: further than the precision may be, integers left out.
        """
        reference = Reference(self.model.folder, self.model.family, self.solutions)
        goldens, painted = self._asked(reference, progress)
        save(goldens, stage / "golden")
        ends = {"exact": EXACT, "exported": ".onnx"} if self.in_integers else {"exact": ".onnx"}
        names = [bucket.name for graph in graphs.values() for bucket in graph.buckets]
        found = {}
        for name, end in ends.items():
            level = self.settings.accuracy_level if name == "exported" else 0
            files = {file: stage / f"{file}{end}" for file in names}
            found[name] = measure(goldens, painted, Graphs(files, graphs, level))
        if self.in_halves:
            _check_halves(graphs, goldens, stage)
        check(found["exact"], TOLERANCES["fp16" if self.in_halves else self.settings.precision])
        if self.in_integers:
            check(found["exported"], rounding_tolerance(self.solutions.values()) if self._in_bytes else IN_INTEGERS)
        return found

    def _asked(self, reference: Reference, progress: Progress) -> tuple[list[Exchange], Painted | None]:
        """What torch answers on golden inputs, and where there is a host, a picture that torch painted."""
        if self.host is None:
            return observed(reference, self.sizes, progress), None
        ids = reference.ids(self.host)
        if self.settings.shapes == "fixed" and len(ids) > self.settings.tokens:
            raise UserError(
                f"The prompt that the graphs are held against has {len(ids)} tokens; give export.tokens that many."
            )
        goldens = golden(reference, self.host, cases_of(self.host, ids, self.sizes), progress)
        return goldens, paint(reference, self.host, ids, self.sizes[0])

    def _models(self, progress: Progress) -> dict[str, ir.Model]:
        """Every graph without weights, by name."""
        graphs = self.model.family.graphs
        traced: dict[str, ir.Model] = {}
        for number, graph in enumerate(graphs):
            progress("tracing", number, len(graphs))
            traced[graph.name] = self._traced(graph)
        progress("tracing", len(graphs), len(graphs))
        return traced

    def _write_graphs(
        self, models: dict[str, ir.Model], buckets: dict[str, list[Bucket]], stage: Path, progress: Progress
    ) -> None:
        """Writes every file of every graph, and the weights of every component."""
        for component, source in self.sources.items():
            files = {
                bucket.name: fixed_shapes(models[graph.name].clone(), bucket.axes)
                if bucket.axes
                else models[graph.name]
                for graph in self.model.family.graphs
                if graph.component == component
                for bucket in buckets.get(graph.name, [])
            }
            attach(list(files.values()), source, stage, component, progress)
            for name, model in files.items():
                self._save(model, stage / f"{name}.onnx", source)

    def _traced(self, graph: Graph) -> ir.Model:
        """A graph without weights, as the device runs it."""
        source, settings = self.sources[graph.component], self.settings
        dtype = torch.float16 if self.in_halves else torch.float32
        model = traced(graph, self.model.folder / graph.component, dtype)
        known = self.model.family.component(graph.component)
        for name in known.embeddings if known else ():
            embedding(model, name, source.dtype_of_rows(name))
        if self.flavour == "ort":
            linear_int4(model, source.packed, settings.accuracy_level)
        elif self.flavour == "qdq":
            linear_dequantize(model, source.packed)
        elif self._in_bytes:
            linear_int8(model, source.bytes)
        return lower(model, settings.opset, settings.flavour == "ort")

    def _save(self, model: ir.Model, file: Path, source: Source) -> None:
        """Writes a graph; where it multiplies in integers, also one that does not, for parity."""
        if self.in_integers:
            set_accuracy_level(model, 0)
            _write_graph(model, file.with_suffix(EXACT))
            set_accuracy_level(model, self.settings.accuracy_level)
        if self._in_bytes:
            round_activations(model, source.bytes, signed=self.settings.flavour == "qdq")
        _write_graph(model, file)

    def _words(self, models: dict[str, ir.Model], buckets: dict[str, list[Bucket]]) -> dict[str, Any]:
        """What pipeline.json says besides sources and parity."""
        longest = {"max_prompt_tokens": self.settings.tokens} if self.settings.shapes == "fixed" else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "family": self.model.family.pipeline,
            **self.settings.model_dump(mode="json"),
            "graphs": {
                graph.name: {
                    **_files(buckets[graph.name]),
                    "component": graph.component,
                    "inputs": [_port(value) for value in models[graph.name].graph.inputs],
                    "outputs": [_port(value) for value in models[graph.name].graph.outputs],
                }
                for graph in self.model.family.graphs
                if graph.name in buckets
            },
            "host": self.model.configs() | longest,
            "sizes": [list(size) for size in self.sizes],
        }


def prepare(source: Path, output: Path, settings: Export, sizes: Sizes) -> Job:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    _check_opset(settings)
    model = find(source).with_graphs(settings.graphs)
    if output.resolve().is_relative_to(model.folder.resolve()):
        raise UserError(f"The output {output} lies inside the model folder {model.folder}; give another --output.")
    host = host_of(model.family, model.configs()) if model.family.host else None
    sizes = sizes or [(native_size(model.folder),) * 2]
    for size in sizes:
        model.check_size(*size) if host is None else host.latent_shape(*size)
    if host is None and settings.shapes == "fixed":
        raise UserError(f"Nothing here knows the shapes of the class {model.family.pipeline}; give shapes: dynamic.")
    if host is not None:
        _check_tokens(host, settings)
        tokenizer_files(model, TOKENIZER)
    components = list(dict.fromkeys(graph.component for graph in model.family.graphs))
    signed = settings.precision == "int4" and settings.flavour == "qdq"
    plain = {name: Source(model.checkpoint(name)) for name in components}
    _check_parts(model)
    if settings.precision == "int4" and not any(part.packed for part in plain.values()):
        raise UserError(
            f"{model.folder} has no 4-bit weights; press it with 'edgepress quantize', or give --precision fp32."
        )
    asking = [name for name, part in plain.items() if signed and part.has_zero_points]
    solutions = {name: _symmetric(model, name) for name in asking}
    if settings.precision == "w8a8":
        solutions = _in_bytes(model, components, settings)
    if signed or solutions:
        operands = blocks if signed else nbits
        plain = {name: Source(model.checkpoint(name), solutions.get(name), operands) for name in components}
    return Job(model, host, settings, sizes, solutions, plain)


def _symmetric(model: Model, component: str) -> Checkpoint:
    solution = model.solution(component)
    if solution is None:
        raise UserError(
            f"The {component} in {model.folder} has zero points, which the flavour qdq has no room for; quantize with "
            "a symmetric solution beside it (quantize.also: {qdq: {group_size: 128, zero_point: false}})."
        )
    return solution


def _in_bytes(model: Model, components: Sequence[str], settings: Export) -> dict[str, Checkpoint]:
    """The solutions for products of 8-bit integers, of the components that were pressed."""
    if settings.flavour == "qdq" and settings.activations == "dynamic":
        raise UserError(
            "The flavour qdq has no scale of each token; give --activations static, or --flavour ort, which has one."
        )
    found = {name: model.int8_solution(name, settings.activations) for name in components}
    solutions = {name: solution for name, solution in found.items() if solution is not None}
    if not solutions:
        raise UserError(
            f"{model.folder} has no solution for {settings.activations} activations in 8 bits; quantize with one "
            "beside it (quantize.also: {w8a8: {bits: 8, group_size: channel, zero_point: false, narrow: true, "
            f"activations: {settings.activations}}}}})."
        )
    return solutions


def _check_tokens(host: Host, settings: Export) -> None:
    """Raises UserError where graphs would read more of a prompt than the pipeline does."""
    if settings.tokens > host.max_tokens:
        raise UserError(
            f"The pipeline reads {host.max_tokens} tokens of a prompt at most, and export.tokens asks for "
            f"{settings.tokens}; give export.tokens {host.max_tokens} or fewer."
        )


def _check_parts(model: Model) -> None:
    """Raises UserError where a graph that was asked for needs what a component has lost."""
    for graph in model.family.graphs:
        names = model.checkpoint(graph.component).names() if graph.part else ()
        if graph.part and not any(name.startswith(f"{graph.part}.") for name in names):
            raise UserError(
                f"{model.folder / graph.component} has lost its {graph.part} to pressing; leave {graph.name} out, or "
                "export it from the pipeline that was pressed."
            )


def _check_halves(graphs: Mapping[str, Shaped], goldens: Sequence[Exchange], stage: Path) -> None:
    """Raises UserError where float16 cannot hold what a graph computes for golden inputs."""
    for one in goldens:
        file = stage / f"{pick(graphs, one.graph, one.inputs)}.onnx"
        value = overflowing(file, one.inputs)
        if value:
            raise UserError(
                f"The graph {one.graph} overflows float16 at {value}; quantize with fp16_safe: true and export "
                "what that makes, or export with floats in fp32; nothing was published."
            )


def _check_opset(settings: Export) -> None:
    """Raises UserError where the opset is not one that can be written, or lacks what the flavour needs."""
    least = DEQUANTIZE_OPSET if settings.precision == "int4" and settings.flavour == "qdq" else min(OPSETS)
    if not least <= settings.opset <= max(OPSETS):
        raise UserError(
            f"Opset {settings.opset} cannot be exported with {settings.precision} and the flavour "
            f"{settings.flavour}; give --opset {least} to {max(OPSETS)}."
        )


def _files(buckets: Sequence[Bucket]) -> dict[str, Any]:
    """The one file of a graph, or those of fixed shapes with the sizes of their axes."""
    if not buckets[0].axes:
        return {"file": f"{buckets[0].name}.onnx"}
    return {"buckets": [{"file": f"{bucket.name}.onnx", "axes": dict(bucket.axes)} for bucket in buckets]}


def _port(value: ir.Value) -> dict[str, Any]:
    """An input or output in pipeline.json's words: its name, dtype, and axes by size or name."""
    assert value.dtype is not None
    assert value.shape is not None
    axes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": value.name, "dtype": value.dtype.numpy().name, "shape": axes}


def _write_graph(model: ir.Model, file: Path) -> None:
    written(file, lambda new: ir.save(model, new, format="protobuf"))


def _write_tokenizers(model: Model, stage: Path) -> None:
    """The tokenizer as the runtime reads it; where the runtime does not paint, all that the pipeline has of them."""
    if not model.family.host:
        for folder in tokenizer_folders(model):
            shutil.copytree(folder, stage / folder.name)
        return
    (stage / "tokenizer").mkdir()
    for name, text in tokenizer_files(model, TOKENIZER).items():
        (stage / "tokenizer" / name).write_text(text, "utf-8")
