"""Programs are decomposed only where an operator cannot be written as it is, and compute the same either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from helpers.traced_module import Compute, TracedModule
from torch import Tensor, nn
from torch.onnx._internal.exporter import _fx_passes

from edgepress.export.graph.decomposition import ignore_gpu_autocast, skip_needless_decomposition


def add_in_place(x: Tensor) -> Tensor:
    y = x * 2
    y += 1
    return y


def compute_without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.exp()
    return y + x


def compute_without_autocast(x: Tensor) -> Tensor:
    with torch.amp.autocast("cuda", enabled=False):
        y = x.exp()
    return y + x


COMPUTATIONS: dict[str, tuple[Compute, bool]] = {
    "written as it is": (lambda x: nn.functional.gelu(x, approximate="tanh"), False),
    "converted": (lambda x: (x.half() * 3).float(), False),
    "converted to its own dtype": (lambda x: x.float() + x.to(torch.float32), False),
    "an output of its own dtype": (lambda x: x.to(torch.float32), False),
    "converted on a device": (lambda x: x.half().to("cpu", torch.float32) + x.to("cpu", torch.float32), False),
    "squared": (lambda x: x.square() - (3 * x).long().square(), False),
    "subtracted from a number": (lambda x: 1 - x + (7 - (3 * x).long()), False),
    "subtracted twice": (lambda x: torch.rsub(x, 1, alpha=2), True),
    "without gradients": (compute_without_gradients, False),
    "without autocast of a GPU": (compute_without_autocast, False),
    "changed in place": (add_in_place, True),
    "not written": (lambda x: nn.functional.huber_loss(x, x.flip(0), reduction="none"), True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPUTATIONS)
def test_graphs_compute_what_torch_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, is_decomposed = COMPUTATIONS[name]
    module, x = TracedModule(compute).eval(), torch.arange(18.0).reshape(3, 6) / 7 - 1
    programs = []
    decompose = _fx_passes.decompose_with_registry
    monkeypatch.setattr(_fx_passes, "decompose_with_registry", lambda *args: programs.append(args) or decompose(*args))
    with torch.no_grad(), skip_needless_decomposition(), ignore_gpu_autocast():
        program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    program.save(tmp_path / "graph.onnx")
    (output,) = ort.InferenceSession(tmp_path / "graph.onnx").run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(output, module(x).numpy(), rtol=1e-3, atol=1e-5)
    assert bool(programs) == is_decomposed
