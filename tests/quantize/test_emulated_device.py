"""Nothing is left on the processor where another device was asked for: an emulated one, which refuses to mix.

It computes as the processor does, so that the results are the same: to the byte where tensors lie alike in memory.
This says nothing of kernels and memory of a real GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepress.storage.manifest import Manifest

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "emulated_quantization.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("emulated")
    path = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    parsed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return parsed


def test_the_device_refuses_to_mix(report: dict[str, Any]) -> None:
    assert report["mixed"] == "aten.add.Tensor mixes tensors of emulated and cpu"


@pytest.mark.parametrize("name", ["steps", "best", "budget"])
def test_bytes_are_those_of_the_processor(report: dict[str, Any], name: str) -> None:
    assert report["emulated"][name]["sha256"] == report["cpu"][name]["sha256"]


def test_an_interrupted_run_goes_on_there(report: dict[str, Any]) -> None:
    assert report["resumed"] == report["emulated"]["tuned"]["sha256"]


@pytest.mark.parametrize("name", ["tuned", "blocks"])
def test_tuning_is_the_same_but_for_last_bits(report: dict[str, Any], name: str) -> None:
    """They depend on where numbers lie in memory, and the first steps of Adam on little but their signs."""
    expected, result = (report[kind][name]["manifest"]["tuning"]["transformer"] for kind in ("cpu", "emulated"))
    assert result["model"]["best_step"] > 0
    for scheme, record in expected.items():
        assert result[scheme] == pytest.approx(record, rel=1e-3)


def test_the_manifest_names_a_gpu_alone(report: dict[str, Any]) -> None:
    assert report["emulated"]["best"]["manifest"]["gpu"] == "Emulated GPU"
    assert "gpu" not in report["cpu"]["best"]["manifest"]
    assert Manifest.model_validate(report["cpu"]["best"]["manifest"]).gpu is None
    assert report["emulated"]["best"]["manifest"]["key"] != report["cpu"]["best"]["manifest"]["key"]


def test_work_of_another_device_is_not_taken(report: dict[str, Any]) -> None:
    assert "or on another GPU. Use --force" in report["other device"]


def test_memory_that_does_not_suffice_is_said(report: dict[str, Any]) -> None:
    assert "of Emulated GPU, of which 0.0 GiB are free. Close other programs" in report["small"]
    assert "The memory of Emulated GPU was full in the stage 'quantizing'. Close other programs" in report["full"]
