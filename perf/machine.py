"""Which machine this is, as far as the system says so; what it does not say is None, and nothing is guessed."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .process_memory import parse_proc_file

# Part numbers of Arm's own cores (Linux, arch/arm64/include/asm/cputype.h), of the boards that recipes are for.
ARM_IMPLEMENTER = "0x41"
ARM_CORE_NAMES = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
}
DMI_PLACEHOLDERS = {
    "",
    "to be filled by o.e.m.",
    "system product name",
    "system manufacturer",
    "default string",
    "none",
}


class MachineInfo(BaseModel):
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


def read_machine_info(root: Path = Path("/")) -> MachineInfo:
    """This machine; `root` is where its /proc, /sys and /etc are."""
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    memory = parse_proc_file(root / "proc/meminfo")
    return MachineInfo(
        model=_read_model(root),
        cpu=_parse_cpu(cpuinfo),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        virtual=_parse_virtual(cpuinfo),
        memory=_kib_to_bytes(memory.get("MemTotal")),
        swap=_kib_to_bytes(memory.get("SwapTotal")),
        system=_read_os_name(root),
        release=read_text(root / "etc/nv_tegra_release"),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def read_text(file: Path) -> str | None:
    """The text of a file of the system's, stripped; None where there is none, or an empty one."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n\t") or None
    except OSError:
        return None


def _read_model(root: Path) -> str | None:
    """A board's device tree, or a computer's DMI tables."""
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board
    said = [read_text(root / "sys/class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name")]
    return " ".join(name for name in said if name.lower() not in DMI_PLACEHOLDERS) or None


def _parse_cpu(cpuinfo: str) -> str | None:
    """One name on x86; on Arm the cores by their part numbers, such as `4 x Cortex-A55, 4 x Cortex-A76`."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named[1].strip()
    makers = re.findall(r"^CPU implementer\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    cores = Counter(map(_core_name, makers, parts))
    return ", ".join(f"{count} x {name}" for name, count in sorted(cores.items())) or None


def _core_name(maker: str, part: str) -> str:
    known = ARM_CORE_NAMES.get(part.lower()) if maker.lower() == ARM_IMPLEMENTER else None
    return known or f"part {part} of implementer {maker}"


def _parse_virtual(cpuinfo: str) -> bool | None:
    """x86 processors say so among their flags; others do not say."""
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return "hypervisor" in flags[1].split() if flags else None


def _read_os_name(root: Path) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return found[1] if found else None


def _kib_to_bytes(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else 1024 * kilobytes
