"""Only operators whose inputs are converted are interpreted again, and graphs compute the same either way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers.traced_module import Compute, TracedModule
from torch import Tensor, nn
from torch.onnx._internal.fx.passes.type_promotion import _TypePromotionInterpreter

from edgepress.export.graph.type_promotion import interpret_promoted_nodes_only

# What is computed, and whether torch.onnx converts anything in it.
COMPUTATIONS: dict[str, tuple[Compute, bool]] = {
    "one dtype": (lambda x: torch.exp(x) * x + 0.5, False),
    "an integer added to floats": (lambda x: torch.exp(1 + x) * 3, True),
    "a float added to integers": (lambda x: (10 * x).long() + 0.5, True),
    "the logarithm of integers": (lambda x: torch.log((10 * x).abs().long() + 1), True),
    "integers times floats": (lambda x: (10 * x).long() * x, True),
    "a mask times floats": (lambda x: torch.exp((x > 0) * x), True),
    "halves added to floats": (lambda x: torch.exp(x.half() + x) - x, True),
    "integers divided": (lambda x: (10 * x).long() / 3, True),
}


def export_onnx(module: nn.Module, x: Tensor, context: AbstractContextManager[None]) -> onnx.ModelProto:
    with context:
        program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    return program.model_proto


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPUTATIONS)
def test_graphs_compute_what_torch_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the operators of torch.onnx alone, and those that stay as they are do not run again."""
    compute, promotes = COMPUTATIONS[name]
    module, x = TracedModule(compute).eval(), torch.arange(18.0).reshape(3, 6) / 7 - 1
    plain = export_onnx(module, x, nullcontext())
    reruns: list[Any] = []
    rerun = _TypePromotionInterpreter._rerun_node_after_type_promotion
    monkeypatch.setattr(
        _TypePromotionInterpreter,
        "_rerun_node_after_type_promotion",
        lambda self, node, dtype: reruns.append(node) or rerun(self, node, dtype),
    )
    monkeypatch.setattr(_TypePromotionInterpreter, "call_function", count_calls(calls := []))
    model = export_onnx(module, x, interpret_promoted_nodes_only())
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in plain.graph.node]
    assert bool(reruns) == promotes
    assert bool(calls) == promotes
    onnx.save(model, tmp_path / "graph.onnx")
    (output,) = ort.InferenceSession(tmp_path / "graph.onnx").run(None, {"x": x.numpy()})
    with torch.no_grad():
        expected = module(x).numpy()
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)


def count_calls(calls: list[Any]) -> Callable[..., Any]:
    """Returns the interpreter's method that runs an operator, noting each."""
    call_function = _TypePromotionInterpreter.call_function

    def call_and_note(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        calls.append(target)
        return call_function(self, target, args, kwargs)

    return call_and_note
