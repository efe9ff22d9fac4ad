"""The board kit's script, run as its owner runs it, with a stand-in for the board's runtime that adds its inputs."""

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

STAND_IN = """
class RKNNLite:
    def load_rknn(self, path):
        return -1 if path.endswith("broken.rknn") else 0
    def init_runtime(self):
        return 0
    def inference(self, inputs, data_format):
        assert data_format == ["nchw"] * len(inputs) and all(one.dtype == "float32" for one in inputs)
        return [sum(inputs)]
    def release(self):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported folder of two parts for the NPU, one that cannot be loaded, and one for the CPU."""
    parts = [("good", "npu"), ("off", "npu"), ("broken", "npu"), ("text", "cpu")]
    said = [{"name": name, "device": device, "simulated": {"relative": 1e-3}} for name, device in parts]
    content = {"toolkit": "2.5.0", "target": "rk3588", "graphs": {"all": said}}
    (tmp_path / "pipeline.json").write_text(json.dumps(content))
    (tmp_path / "golden").mkdir()
    a, b = np.float32([[1, 2]]), np.float32([[3, 4]])
    for name, out in (("good", a + b), ("off", (a + b) * 2), ("broken", a)):
        arrays: dict[str, Any] = {"in.b": b, "in.a": a}
        np.savez(tmp_path / "golden" / f"{name}.npz", **arrays, out=out)
    write_board_kit(tmp_path)
    return tmp_path


def run(folder: Path) -> dict[str, Any]:
    package = folder / "site" / "rknnlite"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "api.py").write_text(STAND_IN)
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run([sys.executable, folder / SCRIPT], capture_output=True, env=environment, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_report_says_how_far_each_part_is_from_its_golden_output(folder: Path) -> None:
    parts = run(folder)["parts"]
    assert set(parts) == {"good", "off", "broken"}
    assert parts["good"]["relative error"] == 0
    assert parts["good"]["cosine"] == pytest.approx(1)
    assert parts["off"]["relative error"] == pytest.approx(0.5)
    assert len(parts["off"]["milliseconds"]) == 5
    assert parts["broken"] == {"failed": "load_rknn returned -1", "simulated": 1e-3}


def test_a_runtime_that_is_missing_or_older_is_warned_of(folder: Path) -> None:
    report = run(folder)
    assert report["versions"]["built with rknn-toolkit2"] == "2.5.0"
    assert any(warning.startswith("rknn-toolkit-lite2 is not installed") for warning in report["warnings"])
    assert any("use one that is as new" in warning for warning in report["warnings"])
