"""The virtual environment of each tool, in build/peers/NAME/env, with the exact versions in NAME.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .errors import PeerError, find_cause

FOLDER = Path(__file__).parent
TORCH_PREFIX = "torch=="  # installed first, because other packages are built against it


def read_requirements(name: str) -> str:
    """Returns the pinned requirements of an environment, including comments on how to install them."""
    return (FOLDER / f"{name}.txt").read_text("utf-8")


def ensure_environment(name: str, folder: Path, file: Path | None = None) -> Path:
    """Creates an environment if it is missing or its pins have changed; returns its interpreter.

    Args:
        name: The tool.
        folder: The folder to create it in.
        file: The pins; default: those of the tool.

    Raises:
        PeerError: Installation failed, with pip's reason.
    """
    pins = read_requirements(name) if file is None else file.read_text("utf-8")
    file, environment = file or FOLDER / f"{name}.txt", folder / "env"
    python, marker = environment / "bin" / "python", environment / ".set-up"
    if marker.exists() and marker.read_text("utf-8") == pins:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "install.log"
    log.write_bytes(b"")
    _run_command([sys.executable, "-m", "venv", "--clear", str(environment)], log)
    for arguments in list_install_steps(pins, file):
        _run_command([str(python), "-m", "pip", "install", "--quiet", *arguments], log)
    marker.write_text(pins, "utf-8")
    return python


def list_install_steps(pins: str, file: Path) -> list[list[str]]:
    """Returns the arguments of pip for every call.

    torch comes first, then the packages in comments `# first: ...`, then all with the options in `# options: ...`.
    """
    lines = pins.splitlines()
    first = [line.removeprefix("# first: ").split() for line in lines if line.startswith("# first: ")]
    options = [word for line in lines if line.startswith("# options: ") for word in line.split()[2:]]
    torch = [line for line in lines if line.startswith(TORCH_PREFIX)]
    return [*([torch] if torch else []), *first, [*options, "--requirement", str(file)]]


def _run_command(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        process = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        raise PeerError(f"installation failed: {find_cause(log)}")
