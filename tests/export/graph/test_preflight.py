from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from edgepress.common.errors import UserError
from edgepress.export.graph.preflight import check_export, count_denoiser_weights
from edgepress.export.graph.source_model import open_source


def test_the_denoisers_weights_are_counted(tiny: Path) -> None:
    total = 0
    for file in (tiny / "transformer").glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    assert count_denoiser_weights(open_source(tiny)) == total > 0


def test_room_is_needed_for_weights_of_so_many_bits(tiny: Path, tmp_path: Path) -> None:
    source = open_source(tiny)
    check_export(source, tmp_path / "artifact" / "onnx", 16)
    with pytest.raises(UserError, match="needs"):
        check_export(source, tmp_path / "artifact" / "onnx", 10**15)
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("name", ["onnx", "rknn"])
def test_files_of_others_in_the_place_of_the_export_are_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "my_model.onnx"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(UserError, match=rf"{name} was not made by edgepress, .*another output folder"):
        check_export(open_source(tiny), tmp_path / name, 16)
    assert [file.parent, file] == sorted(tmp_path.rglob("*"))


def test_a_file_in_place_of_the_artifact_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact").touch()
    with pytest.raises(UserError, match="artifact"):
        check_export(open_source(tiny), tmp_path / "artifact" / "onnx", 16)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "scheduler/scheduler_config.json",
            {"use_karras_sigmas": True},
            "Unsupported scheduler option use_karras_sigmas",
        ),
        ("vae/config.json", {"shift_factor": None}, "shift_factor is "),
    ],
)
def test_what_would_make_generating_fail_is_refused(
    file: str, changes: dict[str, object], message: str, tiny: Path, tmp_path: Path
) -> None:
    pipeline = shutil.copytree(tiny, tmp_path / "pipeline")
    (pipeline / file).write_text(json.dumps(json.loads((pipeline / file).read_text()) | changes))
    with pytest.raises(UserError, match=message):
        check_export(open_source(pipeline), tmp_path / "artifact" / "onnx", 16)
