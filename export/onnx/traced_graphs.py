"""Traces the graphs of an export, rewritten for the target but without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from ...common.progress import Progress
from ...models.base.graph import Graph
from ...runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket
from ..graph.lowering import lower_graph
from ..graph.passes.convolution import dequantize_convolutions
from ..graph.passes.dequantize_linear import replace_with_dequantize_linear
from ..graph.passes.embedding import narrow_embedding
from ..graph.passes.matmul_nbits import replace_with_matmul_nbits
from ..graph.passes.qdq_int8 import replace_with_int8
from ..graph.trace_cache import trace_cached
from .prepare import ExportPlan
from .shape_buckets import (
    AxisSizes,
    build_bucketed_graphs,
    build_dynamic_buckets,
    build_fixed_buckets,
    collect_shapes,
)


@dataclass(frozen=True)
class TracedGraphs:
    """The graphs of an export, without weights.

    Attributes:
        models: Graphs with dynamic axes, by name.
        shapes: The axis sizes with which the host runs each graph; empty without a host.
        buckets: The files to write of each graph. Graphs of fixed shapes that are never run have none.
    """

    models: Mapping[str, ir.Model]
    shapes: Mapping[str, Sequence[AxisSizes]]
    buckets: Mapping[str, Sequence[ShapeBucket]]

    @property
    def bucketed_graphs(self) -> dict[str, BucketedGraph]:
        """The input axes and files of each graph, by name."""
        return build_bucketed_graphs(self.models, self.buckets)


def trace_graphs(plan: ExportPlan, progress: Progress) -> TracedGraphs:
    """Traces every graph of an export, or takes it from the cache.

    Raises:
        UserError: A graph cannot be written in the opset.
    """
    family, settings = plan.source.family, plan.settings
    models: dict[str, ir.Model] = {}
    for number, graph in enumerate(family.graphs):
        progress("tracing", number, len(family.graphs))
        models[graph.name] = _trace_graph(plan, graph)
    progress("tracing", len(family.graphs), len(family.graphs))
    shapes: dict[str, list[AxisSizes]] = {}
    if plan.host is not None:
        shapes = collect_shapes(plan.host, family, models, plan.sizes, settings.max_prompt_tokens)
    buckets = build_fixed_buckets(shapes) if settings.shapes == "fixed" else build_dynamic_buckets(models)
    return TracedGraphs(models, shapes, buckets)


def _trace_graph(plan: ExportPlan, graph: Graph) -> ir.Model:
    """Returns one graph with the operators of the target."""
    source, settings, weights = plan.source, plan.settings, plan.weights[graph.component]
    model = trace_cached(graph, source.folder / graph.component, torch.float16 if plan.is_fp16 else torch.float32)
    component = source.family.component(graph.component)
    for name in component.embeddings if component else ():
        narrow_embedding(model, name, weights.get_embedding_dtype(name))
    if plan.int4_format or plan.is_w8a8:
        dequantize_convolutions(model, weights.int8_convolutions, settings.opset)
    if plan.int4_format == "ort":
        replace_with_matmul_nbits(model, weights.quantized_linears, settings.accuracy_level)
    elif plan.int4_format == "qdq":
        replace_with_dequantize_linear(model, weights.quantized_linears)
    elif plan.is_w8a8:
        replace_with_int8(model, weights.int8_linears)
    return lower_graph(model, settings.opset, allow_contrib_ops=settings.format == "ort")
