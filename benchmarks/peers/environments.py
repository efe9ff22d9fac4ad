"""Each tool's own virtual environment, in build/peers/NAME/env, made from the exact versions in NAME.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .failure import PeerError, cause

HERE = Path(__file__).parent
TORCH = "torch=="  # installed first: what is built against it must find it there


def requirements(name: str) -> str:
    """The pinned requirements of an environment; comments may say what had to be known to install them."""
    return (HERE / f"{name}.txt").read_text("utf-8")


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made where it is missing or its pins have changed.

    Raises:
        PeerError: it cannot be installed, with pip's reason.
    """
    environment, pins = folder / "env", requirements(name)
    python, mark = environment / "bin" / "python", environment / ".set-up"
    if mark.exists() and mark.read_text("utf-8") == pins:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "install.log"
    log.write_bytes(b"")
    _run([sys.executable, "-m", "venv", "--clear", str(environment)], log)
    for words in install_steps(pins, HERE / f"{name}.txt"):
        _run([str(python), "-m", "pip", "install", "--quiet", *words], log)
    mark.write_text(pins, "utf-8")
    return python


def install_steps(pins: str, file: Path) -> list[list[str]]:
    """The arguments of pip, call by call: torch, what `# first:` lines name, then all with the `# options:`."""
    lines = pins.splitlines()
    first = [line.removeprefix("# first: ").split() for line in lines if line.startswith("# first: ")]
    options = [word for line in lines if line.startswith("# options: ") for word in line.split()[2:]]
    torch = [line for line in lines if line.startswith(TORCH)]
    return [torch, *first, [*options, "--requirement", str(file)]]


def _run(words: list[str], log: Path) -> None:
    with log.open("ab") as output:
        done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise PeerError(f"not installed: {cause(log)}")
