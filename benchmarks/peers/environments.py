"""Each tool's own virtual environment, in build/peers/NAME/env, made from the exact versions in NAME.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .failure import PeerError, find_cause

FOLDER = Path(__file__).parent
TORCH_PREFIX = "torch=="  # installed first: what is built against it must find it there


def read_requirements(name: str) -> str:
    """The pinned requirements of an environment; comments may say what had to be known to install them."""
    return (FOLDER / f"{name}.txt").read_text("utf-8")


def ensure_environment(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made where it is missing or its pins have changed.

    Raises:
        PeerError: it cannot be installed, with pip's reason.
    """
    environment, pins = folder / "env", read_requirements(name)
    python, marker = environment / "bin" / "python", environment / ".set-up"
    if marker.exists() and marker.read_text("utf-8") == pins:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "install.log"
    log.write_bytes(b"")
    _run_command([sys.executable, "-m", "venv", "--clear", str(environment)], log)
    for arguments in list_install_steps(pins, FOLDER / f"{name}.txt"):
        _run_command([str(python), "-m", "pip", "install", "--quiet", *arguments], log)
    marker.write_text(pins, "utf-8")
    return python


def list_install_steps(pins: str, file: Path) -> list[list[str]]:
    """The arguments of pip, call by call: torch, what `# first:` lines name, then all with the `# options:`."""
    lines = pins.splitlines()
    first = [line.removeprefix("# first: ").split() for line in lines if line.startswith("# first: ")]
    options = [word for line in lines if line.startswith("# options: ") for word in line.split()[2:]]
    torch = [line for line in lines if line.startswith(TORCH_PREFIX)]
    return [torch, *first, [*options, "--requirement", str(file)]]


def _run_command(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        process = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        raise PeerError(f"not installed: {find_cause(log)}")
