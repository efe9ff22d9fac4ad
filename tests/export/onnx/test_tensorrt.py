"""The script that builds engines: sound for a shell, and of the graphs' own inputs and axes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgepress.export.onnx.tensorrt import SCRIPT_NAME, get_unsupported_reason, write_engine_script
from edgepress.runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket

PORTS: dict[str, tuple[int | str, ...]] = {"patches": (1, "N", 64), "cos": ("L", 32), "time": (1,)}
ASKED = [{"N": 32, "L": 32}, {"N": 96, "L": 64}, {"N": 64, "L": 96}]


def script(folder: Path, buckets: list[ShapeBucket]) -> Path:
    write_engine_script({"denoiser": BucketedGraph(PORTS, buckets)}, {"denoiser": ASKED}, folder)
    return folder / SCRIPT_NAME


def called(file: Path, *graphs: str) -> list[str]:
    """What the script calls, a line each, where trtexec is one that only prints."""
    fake = file.parent / "trtexec"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run([file, *graphs], env={"TRTEXEC": str(fake), "PATH": "/usr/bin:/bin"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_shapes_are_those_asked_of_inputs_with_dynamic_axes(tmp_path: Path) -> None:
    (line,) = called(script(tmp_path, [ShapeBucket("denoiser", {})]))
    found = dict(re.findall(r"--(\w+)=(\S+)", line))
    assert (found["onnx"], found["saveEngine"]) == ("denoiser.onnx", "engines/denoiser.engine")
    assert found["minShapes"] == "patches:1x32x64,cos:32x32"
    assert found["optShapes"] == found["maxShapes"] == "patches:1x96x64,cos:96x32"
    assert "--stronglyTyped" in line
    assert "--fp16" not in line


def test_files_of_fixed_shapes_are_built_as_they_are(tmp_path: Path) -> None:
    lines = called(
        script(tmp_path, [ShapeBucket("denoiser-N32-L32", ASKED[0]), ShapeBucket("denoiser-N96-L64", ASKED[1])])
    )
    assert [line.split()[0] for line in lines] == ["--onnx=denoiser-N32-L32.onnx", "--onnx=denoiser-N96-L64.onnx"]
    assert not [line for line in lines if "Shapes" in line]


def test_one_graph_can_be_built_alone(tmp_path: Path) -> None:
    assert called(script(tmp_path, [ShapeBucket("denoiser", {})]), "other") == []
    assert len(called(tmp_path / SCRIPT_NAME, "denoiser")) == 1


def test_it_says_that_nobody_ran_it(tmp_path: Path) -> None:
    assert "NOT VERIFIED HERE" in script(tmp_path, [ShapeBucket("denoiser", {})]).read_text()


def test_a_shell_reads_it(tmp_path: Path) -> None:
    file = script(tmp_path, [ShapeBucket("denoiser", {})])
    for shell in ("sh", "bash"):
        assert subprocess.run([shell, "-n", file], check=False).returncode == 0


def test_blocks_that_tensorrt_does_not_read_are_told() -> None:
    assert get_unsupported_reason([]) == get_unsupported_reason([64, 128, 64]) == ""
    assert "these have 32" in get_unsupported_reason([64, 32])
