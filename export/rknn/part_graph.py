"""Writes a part as float ONNX that the toolkit reads: fixed shapes, opset 19, external weights, split-half rotary."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import Tensor

from ...models.base.npu import GraphPart, NpuSpec
from ...storage.checkpoint import Checkpoint
from ..graph.external_weights import WeightSource, write_external_data
from ..graph.lowering import lower_graph
from ..graph.passes.matmul_nbits import replace_with_matmul_nbits
from ..graph.source_model import SourcePipeline
from ..graph.trace_cache import trace_cached
from .group_norm import decompose_group_norm

NPU_OPSET = 19  # the last that rknn-toolkit2 2.5.0 reads
CPU_OPSET = 21  # of parts that ONNX Runtime runs: the first with 4-bit weights


class SplitHalfRotaryWeights(WeightSource):
    """Weights for a rotary embedding that rotates the halves of a head, instead of neighbouring channels.

    The rows of some modules are reordered: in each head the even channels come first, then the odd ones.

    Args:
        checkpoint: Weights of the component.
        solution: Weights that replace those of the checkpoint, if any.
        modules: Patterns of the modules that are reordered.
        head_dim: Channels of a head.
    """

    def __init__(
        self, checkpoint: Checkpoint, solution: Checkpoint | None, modules: tuple[str, ...], head_dim: int
    ) -> None:
        super().__init__(checkpoint, solution)
        self._modules, self._head_dim = modules, head_dim

    def materialize(self, name: str) -> Tensor:
        """Returns the tensor that a graph calls `name`."""
        tensor = super().materialize(name)
        module = name.rpartition(".")[0]
        if not any(fnmatch(module, pattern) for pattern in self._modules):
            return tensor
        channels = torch.arange(self._head_dim)
        order = torch.cat([channels[::2], channels[1::2]])
        reordered: Tensor = tensor.unflatten(0, (-1, self._head_dim))[:, order].flatten(0, 1)
        return reordered


def make_part_weights(
    model: SourcePipeline, npu: NpuSpec, component: str, solution: Checkpoint | None = None
) -> WeightSource:
    """Returns the weights of a component as the graphs of the NPU read them.

    Args:
        model: The pipeline.
        npu: The graphs that the NPU runs.
        component: Name of the component.
        solution: Quantized weights that replace those of the model.
    """
    checkpoint = model.open_checkpoint(component)
    modules = npu.split_half_modules.get(component, ())
    if not modules:
        return WeightSource(checkpoint, solution)
    width, num_heads = (checkpoint.load_config()[key] for key in npu.head_config_keys)
    return SplitHalfRotaryWeights(checkpoint, solution, modules, width // num_heads)


def write_part_onnx(
    part: GraphPart,
    model: SourcePipeline,
    weights: WeightSource,
    axis_sizes: Mapping[str, int],
    folder: Path,
    for_cpu: bool = False,
) -> Path:
    """Writes NAME.onnx and its weights to a folder.

    Args:
        part: The part.
        model: The pipeline.
        weights: Weights of the part's component.
        axis_sizes: Size of every axis that the graph names.
        folder: The folder to write to.
        for_cpu: Whether ONNX Runtime runs the part on the CPU; 4-bit linears then stay packed.

    Returns:
        Path of the ONNX file.
    """
    graph = trace_cached(part.graph, model.folder / part.graph.component, sizes=axis_sizes, blocks=part.blocks)
    if for_cpu:
        graph = replace_with_matmul_nbits(graph, weights.int4_linears, accuracy_level=0)
        graph = lower_graph(graph, CPU_OPSET, allow_contrib_ops=True)
    else:
        graph = lower_graph(decompose_group_norm(graph), NPU_OPSET, allow_contrib_ops=False)
        # The toolkit fails on constants that are nodes with anything but a tensor.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    write_external_data([graph], weights, folder, part.name)
    file = folder / f"{part.name}.onnx"
    ir.save(graph, file, format="protobuf")
    return file
