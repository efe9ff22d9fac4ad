"""The calls that the board's runtime gets, from a module of its name; no board was available."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn.npu import NpuBackend


class FakeRknnLite:
    """A model that returns the sum of its inputs in float16. A file whose name starts with `bad` cannot be loaded."""

    loaded: list[str] = []  # noqa: RUF012 (shared on purpose: each part makes a model of its own)

    def load_rknn(self, path: str) -> int:
        self.loaded.append(Path(path).name)
        return -1 if Path(path).name.startswith("bad") else 0

    def init_runtime(self) -> int:
        return 0

    def inference(self, inputs: list[Any], data_format: list[str]) -> list[Any]:
        assert data_format == ["nchw"] * len(inputs)
        assert all(array.dtype == np.float32 for array in inputs)
        return [sum(inputs).astype(np.float16)]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> NpuBackend:
    api: Any = ModuleType("rknnlite.api")
    api.RKNNLite = FakeRknnLite
    monkeypatch.setattr(FakeRknnLite, "loaded", [])
    monkeypatch.setitem(sys.modules, "rknnlite", ModuleType("rknnlite"))
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    exported: Any = SimpleNamespace(rknn_file=lambda name: Path(f"/artifact/{name}.rknn"))
    return NpuBackend(exported)


def test_outputs_are_float32_whatever_the_npu_computes_in(backend: NpuBackend) -> None:
    output = backend("part", {"a": np.array([1, 2]), "b": np.array([0.5, 0.25])})
    assert (output.dtype, output.tolist()) == (np.float32, [1.5, 2.25])


def test_a_part_is_loaded_once_when_it_first_runs(backend: NpuBackend) -> None:
    assert backend.load_seconds == 0
    for name in ("first", "second", "first"):
        backend(name, {"x": np.zeros(1)})
    assert FakeRknnLite.loaded == ["first.rknn", "second.rknn"]
    assert backend.load_seconds > 0


def test_a_part_that_cannot_be_loaded_is_named_and_tried_again(backend: NpuBackend) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"Cannot run /artifact/bad\.rknn: load_rknn returned -1"):
            backend("bad", {"x": np.zeros(1)})
    assert FakeRknnLite.loaded == ["bad.rknn", "bad.rknn"]
