"""Spares torch.onnx a second tracing of graphs that need no decomposition, which is half of the time of an export.

torch.onnx decomposes every program into the operators that it can write. For that it interprets the whole program once
more with symbolic shapes, also where all can be written as they are but conversions, squares and differences from a
number, which are replaced here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

# Where the argument with the dtype is.
CONVERSIONS: dict[Any, int] = {torch.ops.aten.to.dtype: 1, torch.ops.aten.to.device: 2}
SQUARE, SUBTRACT_FROM = torch.ops.aten.square.default, torch.ops.aten.rsub.Scalar
REMOVED_LATER = frozenset(  # torch.onnx removes these assertions itself
    {
        torch.ops.aten._assert_tensor_metadata.default,
        torch.ops.aten._assert_scalar.default,
    }
)


@contextmanager
def skip_needless_decomposition() -> Iterator[None]:
    """While it is active, torch.onnx decomposes only programs that have operators which it cannot write."""
    try:
        from torch.onnx._internal.exporter import _decomp, _fx_passes

        decompose, list_written = _fx_passes.decompose_with_registry, _decomp.get_onnx_implemented_overloads
    except (ImportError, AttributeError):  # other versions of torch do it elsewhere, and are as slow
        yield
        return

    def decompose_if_needed(exported_program: ExportedProgram, registry: Any) -> ExportedProgram:
        if not _is_writable(exported_program, set(list_written(registry))):
            return decompose(exported_program, registry)
        _replace_operators(exported_program.graph)
        exported_program.graph_module.recompile()
        return exported_program

    _fx_passes.decompose_with_registry = decompose_if_needed
    try:
        yield
    finally:
        _fx_passes.decompose_with_registry = decompose


@contextmanager
def ignore_gpu_autocast() -> Iterator[None]:
    """While it is active, models that switch the autocast of a GPU do nothing; on the CPU it has no effect.

    torch.export makes a program of its own of what autocast encloses, which must be decomposed.
    """
    autocast = torch.amp.autocast

    def autocast_cpu(device_type: str, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        return autocast(device_type, *args, **kwargs) if device_type == "cpu" else nullcontext()

    torch.amp.autocast = autocast_cpu  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.amp.autocast = autocast  # type: ignore[misc]


def _is_writable(program: ExportedProgram, written: set[Callable[..., Any]]) -> bool:
    """Whether each operator is written as it is, is a conversion, or is removed later. None may change its inputs."""
    graph = program.graph
    if any(node.op not in ("placeholder", "call_function", "output") for node in graph.nodes):
        return False
    return all(
        node.target in REMOVED_LATER
        or (
            (node.target in written or _is_replaced(node) or _is_onnx_operator(node))
            and not getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        )
        for node in graph.nodes
        if node.op == "call_function"
    )


def _is_onnx_operator(node: Node) -> bool:
    """Whether a node is an operator of `torch.onnx.ops`."""
    return getattr(node.target, "namespace", "") == "onnx"


def _is_replaced(node: Node) -> bool:
    """Whether `_replace_operators` replaces a node."""
    return (
        node.target is SQUARE
        or node.target in CONVERSIONS
        or (node.target is SUBTRACT_FROM and len(node.args) == 2 and not node.kwargs)
    )


def _replace_operators(graph: Graph) -> None:
    """Replaces operators by those that decomposition gives for them; conversions to the same dtype by their input.

    Nodes that are outputs keep their name, by which the program lists its outputs.
    """
    for node in list(graph.nodes):
        if node.target is SQUARE:
            node.target, node.args = torch.ops.aten.mul.Tensor, (node.args[0], node.args[0])
        elif node.target is SUBTRACT_FROM:
            node.target, node.args = torch.ops.aten.sub.Tensor, (node.args[1], node.args[0])
        elif node.target in CONVERSIONS:
            _replace_conversion(node)


def _replace_conversion(node: Node) -> None:
    source, dtype = node.args[0], node.args[CONVERSIONS[node.target]]
    assert isinstance(source, Node)
    if source.meta["val"].dtype == dtype and all(user.op != "output" for user in node.users):
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)
    else:
        node.target, node.args, node.kwargs = torch.ops.aten._to_copy.default, (source,), {"dtype": dtype}
