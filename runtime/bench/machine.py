"""Which machine this is, as far as the system says so; what it does not say is None, and nothing is guessed."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .watch import numbers

# Part numbers of Arm's own cores (Linux, arch/arm64/include/asm/cputype.h), of the boards that recipes are for.
ARM = "0x41"
PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
}
PLACEHOLDERS = {"", "to be filled by o.e.m.", "system product name", "system manufacturer", "default string", "none"}


class Machine(BaseModel):
    """The machine, sizes in bytes.

    model: of the board or computer. cpu: its cores' name, or names and counts. cores: that this process may use.
    virtual: whether the processor says that it is not the real one. release: the vendor's, on a Jetson.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None
    cpu: str | None
    architecture: str
    cores: int
    virtual: bool | None
    memory: int | None
    swap: int | None
    system: str | None
    release: str | None
    kernel: str
    python: str


def machine(root: Path = Path("/")) -> Machine:
    """This machine; `root` is where its /proc, /sys and /etc are."""
    cpuinfo = read(root / "proc/cpuinfo") or ""
    memory = numbers(root / "proc/meminfo")
    return Machine(
        model=_model(root),
        cpu=_cpu(cpuinfo),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        virtual=_virtual(cpuinfo),
        memory=_bytes(memory.get("MemTotal")),
        swap=_bytes(memory.get("SwapTotal")),
        system=_system(root),
        release=read(root / "etc/nv_tegra_release"),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def read(file: Path) -> str | None:
    """The text of a file of the system's, stripped; None where there is none, or an empty one."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n\t") or None
    except OSError:
        return None


def _model(root: Path) -> str | None:
    """A board's device tree, or a computer's DMI tables."""
    board = read(root / "proc/device-tree/model")
    if board:
        return board
    said = [read(root / "sys/class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name")]
    return " ".join(name for name in said if name.lower() not in PLACEHOLDERS) or None


def _cpu(cpuinfo: str) -> str | None:
    """One name on x86; on Arm the cores by their part numbers, such as `4 x Cortex-A55, 4 x Cortex-A76`."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named[1].strip()
    makers = re.findall(r"^CPU implementer\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    cores = Counter(map(_core, makers, parts))
    return ", ".join(f"{count} x {name}" for name, count in sorted(cores.items())) or None


def _core(maker: str, part: str) -> str:
    known = PARTS.get(part.lower()) if maker.lower() == ARM else None
    return known or f"part {part} of implementer {maker}"


def _virtual(cpuinfo: str) -> bool | None:
    """x86 processors say so among their flags; others do not say."""
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return "hypervisor" in flags[1].split() if flags else None


def _system(root: Path) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', read(root / "etc/os-release") or "", re.MULTILINE)
    return found[1] if found else None


def _bytes(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else 1024 * kilobytes
