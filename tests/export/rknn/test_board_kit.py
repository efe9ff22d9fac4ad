"""The script of the board kit, run with a fake runtime that adds its inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.export.rknn.board_kit import SCRIPT, write_board_kit

FAKE_RUNTIME = """
class RKNNLite:
    def load_rknn(self, path):
        self.loaded = not path.endswith("broken.rknn")
        return 0 if self.loaded else -1
    def init_runtime(self):
        assert self.loaded
        return 0
    def inference(self, inputs, data_format):
        assert data_format == ["nchw"] * len(inputs) and all(array.dtype == "float32" for array in inputs)
        return [sum(inputs)]
    def release(self):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported folder with two parts for the NPU, one that cannot be loaded, and one for the CPU."""
    devices = [("good", "npu"), ("off", "npu"), ("broken", "npu"), ("text", "cpu")]
    parts_config = [{"name": name, "device": device, "simulated": {"relative_error": 1e-3}} for name, device in devices]
    content = {"toolkit": "2.5.0", "target": "rk3588", "graphs": {"all": parts_config}}
    (tmp_path / "pipeline.json").write_text(json.dumps(content))
    (tmp_path / "golden").mkdir()
    a, b = np.float32([[1, 2]]), np.float32([[3, 4]])
    for name, out in (("good", a + b), ("off", (a + b) * 2), ("broken", a)):
        arrays: dict[str, Any] = {"in.b": b, "in.a": a}
        np.savez(tmp_path / "golden" / f"{name}.npz", **arrays, out=out)
    write_board_kit(tmp_path)
    return tmp_path


def run_script(folder: Path) -> dict[str, Any]:
    package = folder / "site" / "rknnlite"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "api.py").write_text(FAKE_RUNTIME)
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    process = subprocess.run([sys.executable, folder / SCRIPT], capture_output=True, env=environment, check=True)
    report: dict[str, Any] = json.loads(process.stdout)
    return report


def test_the_report_has_the_error_of_each_part(folder: Path) -> None:
    parts = run_script(folder)["parts"]
    assert set(parts) == {"good", "off", "broken"}
    assert parts["good"]["relative error"] == 0
    assert parts["good"]["cosine"] == pytest.approx(1)
    assert parts["off"]["relative error"] == pytest.approx(0.5)
    assert len(parts["off"]["milliseconds"]) == 5
    assert parts["broken"] == {"failed": "load_rknn returned -1", "simulated": 1e-3}


def test_a_missing_or_outdated_runtime_gives_a_warning(folder: Path) -> None:
    report = run_script(folder)
    assert report["versions"]["built with rknn-toolkit2"] == "2.5.0"
    assert any(warning.startswith("rknn-toolkit-lite2 is not installed") for warning in report["warnings"])
    assert any("Install 2.5.0 or later" in warning for warning in report["warnings"])
