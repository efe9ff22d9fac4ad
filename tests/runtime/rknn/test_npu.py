"""Loading parts on a board, with a runtime that answers as rknn-toolkit-lite2 does."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn import npu
from edgepress.runtime.rknn.exported import ExportedRknn
from edgepress.runtime.rknn.npu import NpuBackend

RUNTIME = """
calls, code = [], 0

class RKNNLite:
    def load_rknn(self, path):
        calls.append("load_rknn")
        return -1 if path.endswith("refused.rknn") else 0
    def init_runtime(self):
        calls.append("init_runtime")
        return code
    def inference(self, inputs, data_format):
        return [sum(inputs)]
    def release(self):
        calls.append("release")
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runtime, on a board that has everything; `calls` are its calls, `code` is what init_runtime returns."""
    (tmp_path / "site" / "rknnlite").mkdir(parents=True)
    (tmp_path / "site" / "rknnlite" / "__init__.py").touch()
    (tmp_path / "site" / "rknnlite" / "api.py").write_text(RUNTIME)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("rknnlite", "rknnlite.api"):
        monkeypatch.setitem(sys.modules, name, sys)  # so that it is not there after the test
        monkeypatch.delitem(sys.modules, name)
    for name in ("compatible", npu.LIBRARY):
        (tmp_path / name).touch()
    monkeypatch.setattr(npu, "DEVICE_TREE", tmp_path / "compatible")
    monkeypatch.setattr(npu, "LIBRARY_FOLDERS", (tmp_path,))
    return import_module("rknnlite.api")


@pytest.fixture
def backend(tmp_path: Path) -> NpuBackend:
    for name, content in {"part": b"RKNN", "refused": b"RKNN", "junk": b"junk"}.items():
        (tmp_path / f"{name}.rknn").write_bytes(content)
    return NpuBackend(ExportedRknn(tmp_path, "Pipeline", "rk3588", "2.3.2", (64, 64), 32, {}, {}))


def run(backend: NpuBackend, part: str) -> list[float]:
    values: list[float] = backend(part, {"a": np.ones(2), "b": np.ones(2)}).tolist()
    return values


def test_a_part_is_loaded_once(runtime: Any, backend: NpuBackend) -> None:
    assert run(backend, "part") == run(backend, "part") == [2, 2]
    assert runtime.calls == ["load_rknn", "init_runtime"]


def test_a_part_that_was_not_loaded_is_not_started(runtime: Any, backend: NpuBackend) -> None:
    with pytest.raises(UserError, match=r"refused\.rknn: load_rknn returned -1\. Run check_board\.py beside it"):
        run(backend, "refused")
    assert runtime.calls == ["load_rknn", "release"]


def test_a_file_that_is_no_model_is_said_to_be_corrupt(runtime: Any, backend: NpuBackend) -> None:
    """Its load_rknn would return 0."""
    with pytest.raises(UserError, match=r"junk\.rknn is corrupt: it is no RKNN model\. Copy it again"):
        run(backend, "junk")
    assert runtime.calls == []


def test_a_machine_without_a_device_tree_is_no_board(runtime: Any, backend: NpuBackend, tmp_path: Path) -> None:
    (tmp_path / "compatible").unlink()
    with pytest.raises(UserError, match=r"this is no Rockchip board, because .* does not exist"):
        run(backend, "part")
    assert runtime.calls == []


def test_why_the_runtime_does_not_start(runtime: Any, backend: NpuBackend, tmp_path: Path) -> None:
    runtime.code = -1
    with pytest.raises(UserError, match="init_runtime returned -1"):
        run(backend, "part")
    (tmp_path / npu.LIBRARY).unlink()
    with pytest.raises(UserError, match=r"librknnrt\.so is missing in .*\. Install"):
        run(backend, "part")
