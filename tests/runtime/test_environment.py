"""A virtual environment of a board's: what README installs there, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
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


def needed() -> list[str]:
    """The distributions that README installs on a board."""
    (names,) = re.findall(r"^ +pip install (\w[\w -]*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    return str(names).split()


def closure(names: list[str]) -> set[str]:
    """Distributions and all that they require here."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found.add(name)
            wanted = map(Requirement, distribution(name).requires or [])
            left += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that links to the installed files of those distributions, and to edgepress."""
    folder = tmp_path_factory.mktemp("board")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in closure(needed()):
        files = distribution(name).files or []
        tops = {file.parts[0] for file in files} - {"..", "__pycache__"}
        for top in tops:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (packages / "edgepress").symlink_to(ROOT)
    return folder / "bin" / "python"


def run(python: Path, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [python, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_has_no_torch(board: Path, tmp_path: Path) -> None:
    for name in ("torch", "diffusers", "transformers", "safetensors", "onnx"):
        assert "ModuleNotFoundError" in run(board, "-c", f"import {name}", folder=tmp_path).stderr


def test_it_paints(board: Path, exported: Path, tmp_path: Path) -> None:
    words = ("-m", "edgepress", "generate", exported, "--prompt", "a wall", "--steps", "1", "--size", "64x80")
    done = run(board, *words, "-o", tmp_path / "a.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as found:
        assert found.size == (80, 64)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_it_is_measured(board: Path, exported: Path, tmp_path: Path) -> None:
    words = ("-m", "edgepress", "bench", exported, "--images", "1", "--steps", "1", "--size", "64x80")
    done = run(board, *words, "-o", tmp_path / "bench", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "bench").iterdir()) == ["bench.json", "bench.md"]
