"""What the simulator is asked to do, and the files that it is given: read as the toolkit's documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn.exported import BuildConfig
from edgepress.runtime.rknn.simulator import build_model, save_calibration_samples, simulate


class RecordingToolkit:
    """Stands for the toolkit's process: notes the calls, and returns the sum of all inputs of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, list[tuple[str, dict[str, Any]]]()

    def call(self, name: str, **arguments: Any) -> None:
        self.calls.append((name, arguments))
        if name == "run":
            with np.load(arguments["inputs"]) as inputs:
                assert all(array.dtype == np.float32 for array in inputs.values())
                np.savez(arguments["outputs"], sum(inputs.values()))


@pytest.fixture
def toolkit(tmp_path: Path) -> Any:
    (tmp_path / "toolkit").mkdir()
    return RecordingToolkit(tmp_path / "toolkit")


def test_samples_are_listed_one_a_line_in_the_order_of_the_inputs(toolkit: Any, tmp_path: Path) -> None:
    samples = [{"z": np.full(2, number), "a": np.full(3, -number)} for number in range(12)]
    save_calibration_samples(samples, tmp_path / "new" / "samples")
    config = BuildConfig({"target_platform": "rk3588"}, is_quantized=True, float_layers=("y",))
    build_model(toolkit, "part", tmp_path / "part.onnx", config, tmp_path / "new" / "samples", tmp_path / "part.rknn")
    ((name, arguments),) = toolkit.calls
    assert (name, arguments["model"], arguments["float_layers"]) == ("build", "part", ["y"])
    assert arguments["config"] == {"target_platform": "rk3588"}
    lines = Path(arguments["dataset"]).read_text("utf-8").splitlines()
    arrays = [[np.load(path).tolist() for path in line.split()] for line in lines]
    assert arrays == [[sample["z"].tolist(), sample["a"].tolist()] for sample in samples]
    assert all(Path(path).is_absolute() for line in lines for path in line.split())


def test_only_a_quantized_build_reads_samples(toolkit: Any, tmp_path: Path) -> None:
    build_model(toolkit, "part", tmp_path / "part.onnx", BuildConfig({}), tmp_path / "absent")
    assert toolkit.calls[0][1]["dataset"] is None
    assert toolkit.calls[0][1]["rknn"] is None
    with pytest.raises(UserError, match=r"calibration samples are missing: .*absent.*Export the artifact again"):
        build_model(toolkit, "part", tmp_path / "part.onnx", BuildConfig({}, is_quantized=True), tmp_path / "absent")
    assert len(toolkit.calls) == 1


def test_inputs_are_passed_on_as_float32(toolkit: Any) -> None:
    output = simulate(toolkit, "part", {"a": np.array([1, 2]), "b": np.array([0.5, 0.25], np.float16)})
    assert output.tolist() == [1.5, 2.25]
    assert output.dtype == np.float32
