"""Traces a graph of a component to ONNX without its weights.

The component is never loaded: it is built from config.json with empty parameters, so that neither memory nor time grows
with the weights.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from ...models.base.graph import Graph
from ...pipelines.empty_modules import build_empty_component
from .block_pruning import number_read_blocks, prune_repeated_blocks
from .decomposition import ignore_gpu_autocast, skip_needless_decomposition
from .graph_module import WEIGHT_PREFIX, build_module, make_parameters_fake
from .passes.repeat_blocks import repeat_block
from .passes.rms_norm import fuse_rms_norm
from .passes.simplify import fold_constants, remove_dead_code
from .type_promotion import interpret_promoted_nodes_only

TRACE_OPSET = 23  # the first opset with Attention; the passes expect it
TRACE_SIZES = (64, 96, 160, 224)  # of the dynamic axes while tracing, all different so that axes stay distinct


def trace_graph(
    graph: Graph,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    sizes: Mapping[str, int] | None = None,
    blocks: range | None = None,
) -> ir.Model:
    """Traces a graph of a component in opset 23, with constants folded and each norm and attention as one operator.

    Initializers that are weights have the name of their module, a shape and a dtype, but no value. Tables that the
    component computes itself have their values. Of a list of identical blocks, five are traced, or six where states are
    read behind three, and the rest copied.

    Args:
        graph: What to trace.
        folder: Component folder.
        dtype: Dtype of weights and of what is computed with them. Inputs and outputs keep the dtypes of the graph.
        sizes: Sizes of all axes by name; None keeps them dynamic.
        blocks: The blocks of the component that the graph's module runs; None runs all.

    Raises:
        UserError: The folder has no config.json that names a class of diffusers or transformers.
    """
    component = build_empty_component(folder)
    num_pruned = prune_repeated_blocks(component, graph.read_blocks) if blocks is None else {}
    pruned = replace(graph, read_blocks=number_read_blocks(graph.read_blocks)) if num_pruned else graph
    model, paths = _trace_component(pruned, component, dtype, sizes, blocks)
    if all(
        repeat_block(model, paths[path], count, index)
        for path, counts in num_pruned.items()
        for index, count in sorted(counts.items(), reverse=True)  # last first: the indices of the others stay valid
        if path in paths
    ):
        return model
    model, _ = _trace_component(graph, build_empty_component(folder), dtype, sizes, blocks)
    return model


def _trace_component(
    graph: Graph, component: nn.Module, dtype: torch.dtype, sizes: Mapping[str, int] | None, blocks: range | None
) -> tuple[ir.Model, dict[str, str]]:
    """Returns the graph, and the paths of the component's modules in the names of the graph's weights."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    _list_operators_once()
    with (
        torch.no_grad(),  # or what switches gradients off itself becomes a program of its own
        _silence_exporter(),
        _note_no_stack_traces(),
        skip_needless_decomposition(),
        ignore_gpu_autocast(),
        interpret_promoted_nodes_only(),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        make_parameters_fake(component, dtype)
        module = build_module(graph, component, blocks)
        program = torch.onnx.export(
            module,
            module.example(sizes or dict(zip(graph.dynamic_axes, TRACE_SIZES, strict=False))),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=TRACE_OPSET,
            dynamic_shapes=None if sizes else _list_dynamic_shapes(graph),
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
        )
    assert program is not None
    model = _clean_names(program.model, graph, sizes is None)
    _remove_metadata(model)
    return remove_dead_code(fuse_rms_norm(fold_constants(model))), _map_paths(component, module)


def _map_paths(component: nn.Module, module: nn.Module) -> dict[str, str]:
    """Returns the paths of a component's modules in the graph's module, which may hold only a part of it."""
    paths = {child: path.removeprefix(WEIGHT_PREFIX) for path, child in module.named_modules()}
    return {path: paths[child] for path, child in component.named_modules() if child in paths}


def _remove_metadata(model: ir.Model) -> None:
    """Removes what torch notes at every node: stack traces, with paths and source code of the exporting machine."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _list_dynamic_shapes(graph: Graph) -> tuple[dict[int, Any], ...]:
    """Returns the dynamic axes of each input as torch.export describes them."""
    dims = {axis: torch.export.Dim(axis, min=1) for axis in graph.dynamic_axes}
    return tuple({index: dims[axis] for index, axis in enumerate(port.axes) if axis} for port in graph.inputs)


def _clean_names(model: ir.Model, graph: Graph, dynamic: bool) -> ir.Model:
    """Strips the prefix from the names of weights and drops their fake values; names the axes of outputs."""
    for value in list(model.graph.initializers.values()):
        if value.name is not None and value.name.startswith(WEIGHT_PREFIX):
            value.name = value.name.removeprefix(WEIGHT_PREFIX)
        if isinstance(getattr(value.const_value, "raw", None), nn.Parameter):
            value.const_value = None
    for port, value in zip(graph.outputs, model.graph.outputs, strict=True) if dynamic else ():
        assert value.shape is not None
        value.shape = ir.Shape([axis or size for axis, size in zip(port.axes, value.shape, strict=True)])
    return model


def _list_operators_once() -> None:
    """Has torch.onnx list the operators that it knows once a process. It parses the source of each at every export."""
    with suppress(ImportError, AttributeError):  # other versions of torch have the list elsewhere, and are as slow
        from torch.onnx._internal.exporter._registration import onnxscript_apis  # type: ignore[attr-defined]

        if not hasattr(onnxscript_apis.get_torchlib_ops, "cache_info"):
            onnxscript_apis.get_torchlib_ops = cache(onnxscript_apis.get_torchlib_ops)


@contextmanager
def _note_no_stack_traces() -> Iterator[None]:
    """Spares torch from noting a stack trace at every node. They are removed later, and take time to collect."""
    noted = getattr(torch.fx.config, "do_not_emit_stack_traces", None)
    if noted is None:  # other versions of torch always note them
        yield
        return
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = noted


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Hides warnings of torch.onnx about optional libraries."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
