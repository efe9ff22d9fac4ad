"""A part as float ONNX that the toolkit reads: fixed shapes, opset 19, weights beside it, heads in halves."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import Tensor

from ...checkpoint import Checkpoint
from ...models.npu import Npu, Part
from ..onnx.kept import traced
from ..onnx.lower import lower
from ..onnx.model import Model
from ..onnx.passes.linear_int4 import linear_int4
from ..onnx.weights import Source, attach
from .group_norm import group_norm

OPSET = 19  # the last that rknn-toolkit2 2.5.0 reads
CPU_OPSET = 21  # of parts that ONNX Runtime runs: the oldest with 4 bits


class Halves(Source):
    """A component's tensors with the rows of some modules in halves of heads: even channels, then odd ones."""

    def __init__(
        self, checkpoint: Checkpoint, solution: Checkpoint | None, modules: tuple[str, ...], head: int
    ) -> None:
        super().__init__(checkpoint, solution)
        self._modules, self._head = modules, head

    def made(self, name: str) -> Tensor:
        """What a graph calls `name`."""
        tensor = super().made(name)
        module = name.rpartition(".")[0]
        if not any(fnmatch(module, pattern) for pattern in self._modules):
            return tensor
        channels = torch.arange(self._head)
        order = torch.cat([channels[::2], channels[1::2]])
        halves: Tensor = tensor.unflatten(0, (-1, self._head))[:, order].flatten(0, 1)
        return halves


def source_of(model: Model, npu: Npu, component: str, solution: Checkpoint | None = None) -> Source:
    """The tensors of a component as an NPU's graphs want them; those of a solution take the place of the model's."""
    checkpoint = model.checkpoint(component)
    modules = npu.halves.get(component, ())
    if not modules:
        return Source(checkpoint, solution)
    width, heads = (checkpoint.config()[key] for key in npu.heads)
    return Halves(checkpoint, solution, modules, width // heads)


def write(part: Part, model: Model, source: Source, sizes: Mapping[str, int], folder: Path, cpu: bool = False) -> Path:
    """Writes NAME.onnx and its weights into a folder; gives the file.

    Args:
        sizes: of the axes.
        cpu: whether ONNX Runtime runs it on the CPU: then packed linears stay packed.
    """
    graph = traced(part.graph, model.folder / part.graph.component, sizes=sizes, blocks=part.blocks)
    if cpu:
        graph = lower(linear_int4(graph, source.packed, accuracy_level=0), CPU_OPSET, microsoft=True)
    else:
        graph = lower(group_norm(graph), OPSET, microsoft=False)
        # The toolkit fails on constants that are nodes with anything but a tensor.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    attach([graph], source, folder, part.name)
    file = folder / f"{part.name}.onnx"
    ir.save(graph, file, format="protobuf")
    return file
