"""A virtual environment like that of a board: the dependencies that edgepress installs by default, and nothing else."""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent

pytestmark = pytest.mark.slow


def list_dependencies() -> set[str]:
    """Returns the distributions that the package depends on without an extra, and all that these require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names: set[str] = set()
    queue = [Requirement(dependency).name for dependency in project["dependencies"]]
    while queue:
        name = canonicalize_name(queue.pop())
        if name not in names:
            names.add(name)
            requirements = map(Requirement, distribution(name).requires or [])
            queue += [
                requirement.name
                for requirement in requirements
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ]
    return names


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with links to edgepress and to the installed files of its dependencies."""
    folder = tmp_path_factory.mktemp("board")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in list_dependencies():
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (packages / "edgepress").symlink_to(ROOT)
    return folder / "bin" / "python"


def run(python: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [python, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_heavy_libraries_are_missing(board: Path, tmp_path: Path) -> None:
    for name in ("torch", "diffusers", "transformers", "safetensors", "onnx"):
        assert "ModuleNotFoundError" in run(board, "-c", f"import {name}", folder=tmp_path).stderr


def test_generate(board: Path, exported: Path, tmp_path: Path) -> None:
    arguments = ("-m", "edgepress", "generate", exported, "--prompt", "a wall", "--steps", "1", "--size", "64x80")
    process = run(board, *arguments, "-o", tmp_path / "a.png", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (80, 64)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_image_pipeline(board: Path, exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys, edgepress\n"
        "image = edgepress.ImagePipeline(sys.argv[1])('a wall', steps=1, size=(64, 80))\n"
        "assert image.size == (80, 64)"
    )
    process = run(board, "-c", script, exported, folder=tmp_path)
    assert process.returncode == 0, process.stderr


def test_bench(board: Path, exported: Path, tmp_path: Path) -> None:
    arguments = ("-m", "edgepress", "bench", exported, "--images", "1", "--steps", "1", "--size", "64x80")
    process = run(board, *arguments, "-o", tmp_path / "bench", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert {file.name for file in (tmp_path / "bench").rglob("*") if file.is_file()} == {
        "bench.json",
        "bench.md",
        "SHA256SUMS",
    }
