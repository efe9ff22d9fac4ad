"""The script that builds TensorRT engines: valid shell, and the shapes of the graphs' inputs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgepress.export.onnx.tensorrt import SCRIPT_NAME, get_unsupported_reason, write_engine_script
from edgepress.runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket

INPUT_AXES: dict[str, tuple[int | str, ...]] = {"patches": (1, "N", 64), "cos": ("L", 32), "time": (1,)}
SHAPES = [{"N": 32, "L": 32}, {"N": 96, "L": 64}, {"N": 64, "L": 96}]


def write_script(folder: Path, buckets: list[ShapeBucket]) -> Path:
    write_engine_script({"denoiser": BucketedGraph(INPUT_AXES, buckets)}, {"denoiser": SHAPES}, folder)
    return folder / SCRIPT_NAME


def run_script(file: Path, *graphs: str) -> list[str]:
    """Runs the script with a trtexec that only prints its arguments, and returns the lines."""
    fake = file.parent / "trtexec"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    result = subprocess.run([file, *graphs], env={"TRTEXEC": str(fake), "PATH": "/usr/bin:/bin"}, capture_output=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().splitlines()


def test_shapes_cover_the_inputs_with_dynamic_axes(tmp_path: Path) -> None:
    (line,) = run_script(write_script(tmp_path, [ShapeBucket("denoiser", {})]))
    options = dict(re.findall(r"--(\w+)=(\S+)", line))
    assert (options["onnx"], options["saveEngine"]) == ("denoiser.onnx", "engines/denoiser.engine")
    assert options["minShapes"] == "patches:1x32x64,cos:32x32"
    assert options["optShapes"] == options["maxShapes"] == "patches:1x96x64,cos:96x32"
    assert "--stronglyTyped" in line
    assert "--fp16" not in line


def test_files_of_fixed_shapes_need_no_shapes(tmp_path: Path) -> None:
    lines = run_script(
        write_script(tmp_path, [ShapeBucket("denoiser-N32-L32", SHAPES[0]), ShapeBucket("denoiser-N96-L64", SHAPES[1])])
    )
    assert [line.split()[0] for line in lines] == ["--onnx=denoiser-N32-L32.onnx", "--onnx=denoiser-N96-L64.onnx"]
    assert not [line for line in lines if "Shapes" in line]


def test_a_single_graph_can_be_built(tmp_path: Path) -> None:
    assert run_script(write_script(tmp_path, [ShapeBucket("denoiser", {})]), "other") == []
    assert len(run_script(tmp_path / SCRIPT_NAME, "denoiser")) == 1


def test_the_script_says_that_it_was_not_verified(tmp_path: Path) -> None:
    assert "NOT VERIFIED HERE" in write_script(tmp_path, [ShapeBucket("denoiser", {})]).read_text()


def test_the_script_is_valid_shell(tmp_path: Path) -> None:
    file = write_script(tmp_path, [ShapeBucket("denoiser", {})])
    for shell in ("sh", "bash"):
        assert subprocess.run([shell, "-n", file], check=False).returncode == 0


def test_unsupported_block_sizes_are_reported() -> None:
    assert get_unsupported_reason([]) == get_unsupported_reason([64, 128, 64]) == ""
    assert "64 or 128, not 32" in get_unsupported_reason([64, 32])
