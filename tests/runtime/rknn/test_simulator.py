"""What the toolkit is given to build a part."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn import toolkit as module
from edgepress.runtime.rknn.exported import BuildConfig
from edgepress.runtime.rknn.simulator import build_model, save_calibration_samples
from edgepress.runtime.rknn.toolkit import Toolkit


def test_lists_of_samples_have_no_spaces_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolkit, which this test does without, splits lines at spaces."""
    monkeypatch.setenv(module.PYTHON_VARIABLE, sys.executable)
    samples = [{"a": np.full(2, number), "b": np.full(2, -number)} for number in range(3)]
    folders = [tmp_path / "my samples", tmp_path / "of another part"]
    for folder in folders:
        save_calibration_samples(samples, folder)
    with Toolkit(folder=tmp_path / "my work" / "toolkit") as toolkit:
        for folder in folders:
            with pytest.raises(UserError, match="failed in 'build'"):
                build_model(toolkit, "part", tmp_path / "part.onnx", BuildConfig({}, True), folder)
            lines = (toolkit.folder / "dataset.txt").read_text("utf-8").splitlines()
            rows = [[toolkit.folder / name for name in line.split()] for line in lines]
            assert [[np.load(file).tolist() for file in row] for row in rows] == [
                [sample["a"].tolist(), sample["b"].tolist()] for sample in samples
            ]
            assert {file.resolve().parent for row in rows for file in row} == {folder}
    assert {folder.name for folder in tmp_path.iterdir()} >= {folder.name for folder in folders}
    assert all(len(list(folder.iterdir())) == 7 for folder in folders)
