"""Writes the files of an export: graphs, weights, tokenizers, TensorRT's script and pipeline.json."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...common.progress import Progress
from ...recipes.execution import RuntimeSettings
from ...recipes.presets import Presets
from ...runtime.onnx.sessions import describe_session_options
from ...runtime.onnx.shape_buckets import ShapeBucket
from ...storage.atomic_file import atomic_write
from ...storage.files import FileRecord
from ...storage.pipeline_config import (
    BucketConfig,
    GraphConfig,
    OnnxPipelineConfig,
    ParityConfig,
    PortConfig,
    write_config,
)
from ..graph.external_weights import WeightSource, write_external_data
from ..graph.passes.fixed_shapes import fix_shapes
from ..graph.passes.matmul_nbits import set_accuracy_level
from ..graph.passes.qdq_int8 import quantize_activations
from ..graph.recipe_configs import describe_presets, describe_runtime
from ..verification.parity import Parity
from .prepare import ExportPlan
from .tensorrt import write_engine_script
from .traced_graphs import TracedGraphs

REFERENCE_SUFFIX = ".exact.onnx"  # of graphs without int8 products, which are written for parity alone


class OnnxWriter:
    """Writes an export into a folder.

    Args:
        plan: The export.
        graphs: Its traced graphs.
        folder: An existing, empty folder.
    """

    def __init__(self, plan: ExportPlan, graphs: TracedGraphs, folder: Path) -> None:
        self._plan, self._graphs, self._folder = plan, graphs, folder
        self._weight_files: list[FileRecord] = []

    def write_graphs(self, progress: Progress) -> None:
        """Writes the weights of every component and every file of every graph.

        Raises:
            UserError: A component lacks a weight.
        """
        for component, weights in self._plan.weights.items():
            models = dict(self._iter_models(component))
            self._weight_files += write_external_data(list(models.values()), weights, self._folder, component, progress)
            for name, model in models.items():
                self._write_model(model, self._folder / f"{name}.onnx", weights)

    def _iter_models(self, component: str) -> Iterator[tuple[str, ir.Model]]:
        """Yields the name and model of every file of a component's graphs."""
        for graph in self._plan.source.family.graphs:
            model = self._graphs.models[graph.name]
            for bucket in self._graphs.buckets.get(graph.name, ()) if graph.component == component else ():
                yield bucket.name, fix_shapes(model.clone(), bucket.axis_sizes) if bucket.axis_sizes else model

    def _write_model(self, model: ir.Model, file: Path, weights: WeightSource) -> None:
        """Writes a graph, and one without int8 products for parity where it has some."""
        settings = self._plan.settings
        if self._plan.uses_int8_matmul:
            set_accuracy_level(model, 0)
            _save_model(model, file.with_suffix(REFERENCE_SUFFIX))
            set_accuracy_level(model, settings.accuracy_level)
        if self._plan.is_w8a8:
            quantize_activations(model, weights.int8_linears, signed=settings.format == "qdq")
        _save_model(model, file)

    def remove_reference_graphs(self) -> None:
        """Removes the graphs that were written for parity alone."""
        for file in self._folder.glob(f"*{REFERENCE_SUFFIX}"):
            file.unlink()

    def write_tokenizers(self) -> None:
        """Writes the tokenizers as the runtime reads them. Without a host, copies all tokenizers of the pipeline."""
        source, host = self._plan.source, self._plan.host
        if host is not None:
            for prompt_format in host.prompt_formats:
                has_template = prompt_format.chat_template_kwargs is not None
                source.write_tokenizer_files(self._folder / prompt_format.tokenizer, has_template)
            return
        for folder in source.list_tokenizer_folders():
            shutil.copytree(folder, self._folder / folder.name)

    def write_engine_script(self) -> None:
        """Writes the script that builds TensorRT engines, where graphs are for TensorRT and shapes are known."""
        plan, shapes = self._plan, self._graphs.shapes
        if shapes and plan.settings.format == "qdq" and not plan.tensorrt_unsupported_reason:
            write_engine_script(self._graphs.bucketed_graphs, shapes, self._folder)

    def write_config(
        self,
        sources: Sequence[FileRecord],
        model_sha256: str,
        parity: Mapping[str, Parity],
        presets: Presets,
        runtime: RuntimeSettings,
    ) -> None:
        """Writes pipeline.json and SHA256SUMS, which record all other files; call it last.

        Args:
            sources: The files of the pipeline.
            model_sha256: Digest of these files if they are the model of the artifact; else empty.
            parity: What was measured; empty if nothing was.
            presets: The recipe's presets.
            runtime: How graphs run on the device.
        """
        source, settings, models = self._plan.source, self._plan.settings, self._graphs.models
        is_fixed = settings.shapes == "fixed"
        config = OnnxPipelineConfig(
            family=source.family.pipeline_class,
            **settings.model_dump(exclude={"sizes", "extra_graphs"}),
            sizes=tuple(self._plan.sizes),
            graphs={
                graph.name: GraphConfig(
                    **_describe_files(self._graphs.buckets[graph.name]),
                    component=graph.component,
                    inputs=tuple(map(_describe_port, models[graph.name].graph.inputs)),
                    outputs=tuple(map(_describe_port, models[graph.name].graph.outputs)),
                )
                for graph in source.family.graphs
                if graph.name in self._graphs.buckets
            },
            host={**source.configs, **({"max_prompt_tokens": settings.max_prompt_tokens} if is_fixed else {})},
            sources=tuple(sources),
            model_sha256=model_sha256,
            parity={name: ParityConfig.model_validate(asdict(measured)) for name, measured in parity.items()},
            presets=describe_presets(presets),
            runtime=describe_runtime(runtime),
            session_options=describe_session_options(sorted(self._folder.glob("*.onnx")), settings.accuracy_level),
        )
        write_config(config, self._folder, self._weight_files)


def _describe_files(buckets: Sequence[ShapeBucket]) -> dict[str, Any]:
    """Returns the one file of a graph, or its files of fixed shapes with their axis sizes."""
    if not buckets[0].axis_sizes:
        return {"file": f"{buckets[0].name}.onnx"}
    return {
        "buckets": tuple(BucketConfig(file=f"{bucket.name}.onnx", axes=dict(bucket.axis_sizes)) for bucket in buckets)
    }


def _describe_port(value: ir.Value) -> PortConfig:
    """Returns name, dtype and axes of an input or output; axes are sizes or names."""
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    axes = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return PortConfig(name=value.name, dtype=value.dtype.numpy().name, shape=axes)


def _save_model(model: ir.Model, file: Path) -> None:
    atomic_write(file, lambda temporary: ir.save(model, temporary, format="protobuf"))
