"""Spares torch.onnx a second tracing of graphs that need no decomposition, which is half of the time of an export.

torch.onnx decomposes every program into the operators that it can write. For that it interprets the whole program again
with symbolic shapes, also where each operator can be written as it is, but for conversions of dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

CONVERT = torch.ops.aten.to.dtype
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
        _replace_conversions(exported_program.graph)
        exported_program.graph_module.recompile()
        return exported_program

    _fx_passes.decompose_with_registry = decompose_if_needed
    try:
        yield
    finally:
        _fx_passes.decompose_with_registry = decompose


def _is_writable(program: ExportedProgram, written: set[Callable[..., Any]]) -> bool:
    """Whether each operator is written as it is, is a conversion, or is removed later. None may change its inputs."""
    graph = program.graph
    if any(node.op not in ("placeholder", "call_function", "output") for node in graph.nodes):
        return False
    return all(
        node.target in REMOVED_LATER
        or (
            (node.target in written or node.target is CONVERT or _is_onnx_operator(node))
            and not getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        )
        for node in graph.nodes
        if node.op == "call_function"
    )


def _is_onnx_operator(node: Node) -> bool:
    """Whether a node is an operator of `torch.onnx.ops`."""
    return getattr(node.target, "namespace", "") == "onnx"


def _replace_conversions(graph: Graph) -> None:
    """Replaces conversions by the operator that decomposition gives for them; those to the same dtype by their input.

    Nodes that are outputs keep their name, by which the program lists its outputs.
    """
    for node in list(graph.nodes):
        if node.target is not CONVERT:
            continue
        source, dtype = node.args[0], node.args[1]
        if source.meta["val"].dtype == dtype and all(user.op != "output" for user in node.users):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        else:
            node.target, node.args, node.kwargs = torch.ops.aten._to_copy.default, (source,), {"dtype": dtype}
