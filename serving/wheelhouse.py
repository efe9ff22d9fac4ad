"""A wheelhouse: the wheels of edgepress and the server for another machine, so that a board installs them offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..common.errors import UserError
from ..storage.preflight import check_writable_folder, require_outside, require_possible_path
from ..storage.recognition import is_artifact

EXTRA, OWN_WHEEL = "server", "edgepress-*.whl"
PLATFORM_TAGS = {  # by the names that Linux gives machines
    "aarch64": ("manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_17_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"),
}
SOURCE = Path(__file__).parents[1]  # the repository, unless edgepress was installed from a wheel
NOT_SHIPPED = (".*", "build", "dist", "artifacts", "*.egg-info", "__pycache__", "runs")
PYTHON_TAG = re.compile(r"-cp3(\d+)-cp3\1-")  # of a wheel that only one version loads
MACHINE_TAG = re.compile(rf"_({'|'.join(PLATFORM_TAGS)})\.whl$")  # of a wheel that only one machine loads
MAX_REASON = 300  # characters of what pip says


def download_wheels(folder: Path, machine: str, python: str) -> list[str]:
    """Downloads the wheels of the server for a machine, and builds edgepress's own.

    Args:
        folder: Where they are written.
        machine: `aarch64` or `x86_64`.
        python: Version of its Python, such as `3.11`.

    Returns:
        The names of the wheels.

    Raises:
        UserError: edgepress was not installed from its repository, the folder is in an artifact, a pipeline or an
            export, which wheels would change, or pip finds no wheel.
    """
    if not (SOURCE / "pyproject.toml").exists():
        raise UserError(
            f"{SOURCE} is not the repository, so that the wheel of edgepress cannot be built. "
            "Run this command from a checkout."
        )
    require_possible_path(folder)
    real = folder.resolve()
    require_outside(folder, (real, *real.parents), is_artifact)
    check_writable_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheels-") as scratch:
        with tempfile.TemporaryDirectory(prefix="edgepress-") as copy:
            # In its own folder a build leaves files behind, from which the next wheel would get removed modules.
            source = shutil.copytree(SOURCE, Path(copy) / "source", ignore=shutil.ignore_patterns(*NOT_SHIPPED))
            _run_pip(["wheel", "--no-deps", "--wheel-dir", scratch, str(source)], "Check the network")
        (wheel,) = Path(scratch).glob(OWN_WHEEL)
        tags = [option for tag in PLATFORM_TAGS[machine] for option in ("--platform", tag)]
        target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *tags]
        advice = f"Check the network, and that there are wheels for Python {python} on {machine} (--python)"
        _run_pip(["download", "--dest", scratch, *target, f"{wheel}[{EXTRA}]"], advice)
        for earlier in folder.glob(OWN_WHEEL):
            earlier.unlink()
        for file in Path(scratch).iterdir():
            file.replace(folder / file.name)
    return sorted(file.name for file in folder.glob("*.whl"))


def require_wheels(folder: Path) -> None:
    """Checks that a folder holds the wheel of edgepress, and that all its wheels are whole.

    Raises:
        UserError: They are not.
    """
    if not list(folder.glob(OWN_WHEEL)):
        raise UserError(f"{folder} holds no wheel of edgepress. Run 'edgepress wheelhouse --output {folder}'.")
    for wheel in sorted(folder.glob("*.whl")):
        if not zipfile.is_zipfile(wheel):
            raise UserError(f"{wheel} is no wheel, or not a whole one. Remove it, and download it again.")


def find_wheel_python(folder: Path) -> str:
    """The version of Python that a wheelhouse was downloaded for, such as `3.11`.

    Raises:
        UserError: No wheel names one.
    """
    return f"3.{_find_tag(folder, PYTHON_TAG, 'version of Python')}"


def find_wheel_machine(folder: Path) -> str:
    """The machine that a wheelhouse was downloaded for, such as `aarch64`.

    Raises:
        UserError: No wheel names one.
    """
    return _find_tag(folder, MACHINE_TAG, "kind of machine")


def _find_tag(folder: Path, pattern: re.Pattern[str], kind: str) -> str:
    for wheel in sorted(folder.glob("*.whl")):
        if match := pattern.search(wheel.name):
            return match[1]
    raise UserError(f"{folder} holds no wheel for one {kind}. Run 'edgepress wheelhouse --output {folder}'.")


def _run_pip(arguments: list[str], advice: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = re.findall(r"ERROR: (.+)", result.stderr) or [result.stderr.strip()]
        reason = " ".join(errors[-1].split())[:MAX_REASON].rstrip(".")
        raise UserError(f"pip {arguments[0]} failed ({reason}). {advice}.")
