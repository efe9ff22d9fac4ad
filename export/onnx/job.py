"""TODO"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from ...common.errors import UserError
from ...common.progress import Progress
from ...models.base.graph import Graph
from ...models.base.host import Host
from ...models.base.reference import GoldenIO
from ...recipes.schema import ExportSettings
from ...runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket, select_bucket
from ...storage.checkpoint import Checkpoint
from ...storage.files import atomic_write, write_json
from ..graph.external_weights import WeightSource, write_external_data
from ..graph.lowering import lower_graph
from ..graph.passes.dequantize_linear import replace_with_dequantize_linear
from ..graph.passes.embedding import narrow_embedding
from ..graph.passes.fixed_shapes import fix_shapes
from ..graph.passes.matmul_nbits import replace_with_matmul_nbits, set_accuracy_level
from ..graph.passes.qdq_int8 import quantize_activations, replace_with_int8
from ..graph.source_model import SourcePipeline, list_tokenizer_folders, read_tokenizer_files
from ..graph.trace_cache import trace_cached
from ..verification.fp16_overflow import find_fp16_overflow
from ..verification.golden import TorchReference, build_golden_inputs, compute_goldens, record_pipeline_io, save_goldens
from ..verification.image_parity import ReferenceImage, generate_reference
from ..verification.parity import (
    INT8_TOLERANCE,
    TOLERANCES,
    OrtRunner,
    Parity,
    compute_rounding_tolerance,
    measure_parity,
    require_parity,
)
from .shape_buckets import Axes, build_bucketed_graphs, build_dynamic_buckets, build_fixed_buckets, collect_shapes
from .tensorrt import get_unsupported_reason, write_engine_script

SCHEMA_VERSION = 1


REFERENCE_SUFFIX = ".exact.onnx"  # of a graph that is written for parity alone


TOKENIZER_FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class ExportJob:
    """All that one export is made from; `solutions` are those that take the place of the model's own, by component.

    host: of the family, where it has one.
    """

    model: SourcePipeline
    host: Host | None
    settings: ExportSettings
    sizes: Sizes
    solutions: dict[str, Checkpoint]
    sources: dict[str, WeightSource] = field(repr=False)

    @property
    def uses_int8_matmul(self) -> bool:
        """Whether graphs multiply in 8-bit integers, which costs what parity must tell apart from mistakes."""
        return self.is_w8a8 or bool(self.settings.precision == "int4" and self.settings.accuracy_level)

    @property
    def is_w8a8(self) -> bool:
        return self.settings.precision == "w8a8"

    @property
    def is_fp16(self) -> bool:
        """Whether floats are float16."""
        asked = self.settings.float_dtype if self.settings.precision == "int4" else self.settings.precision
        return asked == "fp16"

    @property
    def flavour(self) -> str | None:
        """That of the 4-bit products, where there are any."""
        return self.settings.format if self.settings.precision == "int4" else None

    @property
    def tensorrt_unsupported_reason(self) -> str:
        """Why TensorRT cannot read what it would be given, in a sentence; empty where it can."""
        sources = self.sources.values() if self.flavour == "qdq" else ()
        return get_unsupported_reason(
            linear.block_size for source in sources for linear in source.int4_linears.values()
        )

    def write(self, stage: Path, progress: Progress, check: bool) -> dict[str, Parity]:
        """Everything but publishing."""
        with ThreadPoolExecutor(1) as pool:
            described = pool.submit(
                self.model.verify_and_hash, progress
            )  # beside tracing and writing, which take longer
            models = self._models(progress)
            asked = self._shapes(models)
            buckets = build_fixed_buckets(asked) if self.settings.shapes == "fixed" else build_dynamic_buckets(models)
            self._write_graphs(models, buckets, stage, progress)
            sources = described.result()
        _write_tokenizers(self.model, stage)
        found = self._parity(build_bucketed_graphs(models, buckets), stage, progress) if check else {}
        for file in stage.glob(f"*{REFERENCE_SUFFIX}"):
            file.unlink()
        if asked and self.settings.format == "qdq" and not self.tensorrt_unsupported_reason:
            write_engine_script(build_bucketed_graphs(models, buckets), asked, stage)
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
        return collect_shapes(self.host, self.model.family, models, self.sizes, self.settings.max_prompt_tokens)

    def _parity(self, graphs: dict[str, BucketedGraph], stage: Path, progress: Progress) -> dict[str, Parity]:
        """How far the graphs are from torch: by themselves, and where they multiply in integers also as they would be
        without.

        Raises:
            UserError: further than the precision may be, integers left out.
        """
        reference = TorchReference(self.model.folder, self.model.family, self.solutions)
        goldens, painted = self._asked(reference, progress)
        save_goldens(goldens, stage / "golden")
        ends = {"exact": REFERENCE_SUFFIX, "exported": ".onnx"} if self.uses_int8_matmul else {"exact": ".onnx"}
        names = [bucket.name for graph in graphs.values() for bucket in graph.buckets]
        found = {}
        for name, end in ends.items():
            level = self.settings.accuracy_level if name == "exported" else 0
            files = {file: stage / f"{file}{end}" for file in names}
            found[name] = measure_parity(goldens, painted, OrtRunner(files, graphs, level))
        if self.is_fp16:
            _check_halves(graphs, goldens, stage)
        require_parity(found["exact"], TOLERANCES["fp16" if self.is_fp16 else self.settings.precision])
        if self.uses_int8_matmul:
            require_parity(
                found["exported"],
                compute_rounding_tolerance(self.solutions.values()) if self.is_w8a8 else INT8_TOLERANCE,
            )
        return found

    def _asked(self, reference: TorchReference, progress: Progress) -> tuple[list[GoldenIO], ReferenceImage | None]:
        """What torch answers on golden inputs, and where there is a host, a picture that torch painted."""
        if self.host is None:
            return record_pipeline_io(reference, self.sizes, progress), None
        ids = reference.tokenize(self.host)
        if self.settings.shapes == "fixed" and len(ids) > self.settings.max_prompt_tokens:
            raise UserError(
                f"The prompt that the graphs are held against has {len(ids)} tokens; give export.tokens that many."
            )
        goldens = compute_goldens(reference, self.host, build_golden_inputs(self.host, ids, self.sizes), progress)
        return goldens, generate_reference(reference, self.host, ids, self.sizes[0])

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
        self, models: dict[str, ir.Model], buckets: dict[str, list[ShapeBucket]], stage: Path, progress: Progress
    ) -> None:
        """Writes every file of every graph, and the weights of every component."""
        for component, source in self.sources.items():
            files = {
                bucket.name: fix_shapes(models[graph.name].clone(), bucket.axis_sizes)
                if bucket.axis_sizes
                else models[graph.name]
                for graph in self.model.family.graphs
                if graph.component == component
                for bucket in buckets.get(graph.name, [])
            }
            write_external_data(list(files.values()), source, stage, component, progress)
            for name, model in files.items():
                self._save(model, stage / f"{name}.onnx", source)

    def _traced(self, graph: Graph) -> ir.Model:
        """A graph without weights, as the device runs it."""
        source, settings = self.sources[graph.component], self.settings
        dtype = torch.float16 if self.is_fp16 else torch.float32
        model = trace_cached(graph, self.model.folder / graph.component, dtype)
        known = self.model.family.component(graph.component)
        for name in known.embeddings if known else ():
            narrow_embedding(model, name, source.get_embedding_dtype(name))
        if self.flavour == "ort":
            replace_with_matmul_nbits(model, source.int4_linears, settings.accuracy_level)
        elif self.flavour == "qdq":
            replace_with_dequantize_linear(model, source.int4_linears)
        elif self.is_w8a8:
            replace_with_int8(model, source.int8_linears)
        return lower_graph(model, settings.opset, settings.format == "ort")

    def _save(self, model: ir.Model, file: Path, source: WeightSource) -> None:
        """Writes a graph; where it multiplies in integers, also one that does not, for parity."""
        if self.uses_int8_matmul:
            set_accuracy_level(model, 0)
            _write_graph(model, file.with_suffix(REFERENCE_SUFFIX))
            set_accuracy_level(model, self.settings.accuracy_level)
        if self.is_w8a8:
            quantize_activations(model, source.int8_linears, signed=self.settings.format == "qdq")
        _write_graph(model, file)

    def _words(self, models: dict[str, ir.Model], buckets: dict[str, list[ShapeBucket]]) -> dict[str, Any]:
        """What pipeline.json says besides sources and parity."""
        longest = {"max_prompt_tokens": self.settings.max_prompt_tokens} if self.settings.shapes == "fixed" else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "family": self.model.family.pipeline_class,
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


def _check_halves(graphs: Mapping[str, BucketedGraph], goldens: Sequence[GoldenIO], stage: Path) -> None:
    """Raises UserError where float16 cannot hold what a graph computes for golden inputs."""
    for one in goldens:
        file = stage / f"{select_bucket(graphs, one.graph, one.inputs)}.onnx"
        value = find_fp16_overflow(file, one.inputs)
        if value:
            raise UserError(
                f"The graph {one.graph} overflows float16 at {value}; quantize with fp16_safe: true and export "
                "what that makes, or export with floats in fp32; nothing was published."
            )


def _files(buckets: Sequence[ShapeBucket]) -> dict[str, Any]:
    """The one file of a graph, or those of fixed shapes with the sizes of their axes."""
    if not buckets[0].axis_sizes:
        return {"file": f"{buckets[0].name}.onnx"}
    return {"buckets": [{"file": f"{bucket.name}.onnx", "axes": dict(bucket.axis_sizes)} for bucket in buckets]}


def _port(value: ir.Value) -> dict[str, Any]:
    """An input or output in pipeline.json's words: its name, dtype, and axes by size or name."""
    assert value.dtype is not None
    assert value.shape is not None
    axes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": value.name, "dtype": value.dtype.numpy().name, "shape": axes}


def _write_graph(model: ir.Model, file: Path) -> None:
    atomic_write(file, lambda new: ir.save(model, new, format="protobuf"))


def _write_tokenizers(model: SourcePipeline, stage: Path) -> None:
    """The tokenizer as the runtime reads it; where the runtime does not paint, all that the pipeline has of them."""
    if not model.family.host:
        for folder in list_tokenizer_folders(model):
            shutil.copytree(folder, stage / folder.name)
        return
    (stage / "tokenizer").mkdir()
    for name, text in read_tokenizer_files(model, TOKENIZER_FILES).items():
        (stage / "tokenizer" / name).write_text(text, "utf-8")
