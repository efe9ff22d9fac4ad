"""Describes this machine, as far as the operating system does; what it does not report is None, never guessed."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from ..common.cpu_features import read_cpu_features
from ..runtime.onnx.arithmetic import explain_arithmetic
from .bench_model import BenchModel
from .process_memory import parse_proc_file

ARM_IMPLEMENTER = "0x41"
# Part numbers of Arm's cores (arch/arm64/include/asm/cputype.h in Linux) on the boards that recipes exist for.
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


class MachineInfo(BenchModel):
    """A machine."""

    model: str | None = Field(description="Model of the board or computer.")
    cpu: str | None = Field(description="Name of the CPU, or names and counts of its cores.")
    architecture: str = Field(description="Instruction set, such as aarch64.")
    cores: PositiveInt = Field(description="Cores that this process can use.")
    virtual: bool | None = Field(description="Whether it is a virtual machine.")
    memory: PositiveInt | None = Field(description="Memory in bytes.")
    swap: NonNegativeInt | None = Field(description="Swap space in bytes.")
    system: str | None = Field(description="Name of the operating system.")
    release: str | None = Field(description="Release of NVIDIA's software on a Jetson.")
    kernel: str = Field(description="Version of the kernel.")
    python: str = Field(description="Version of Python.")
    arithmetic: list[str] = Field(
        default=[], description="How ONNX Runtime computes products on this processor, in sentences."
    )


def read_machine_info(root: Path = Path("/")) -> MachineInfo:
    """Reads what the system reports of this machine.

    Args:
        root: Folder of /proc, /sys and /etc.
    """
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
        arithmetic=explain_arithmetic(read_cpu_features(root / "proc/cpuinfo")),
    )


def read_text(file: Path) -> str | None:
    """Reads a file of the system, stripped; None if it does not exist or is empty."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n\t") or None
    except OSError:
        return None


def _read_model(root: Path) -> str | None:
    """Reads the model from the device tree of a board, or from the DMI tables of a computer."""
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board
    names = [read_text(root / "sys/class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name")]
    return " ".join(name for name in names if name.lower() not in DMI_PLACEHOLDERS) or None


def _parse_cpu(cpuinfo: str) -> str | None:
    """Returns the model name on x86; on Arm the cores by part number, such as `4 x Cortex-A55, 4 x Cortex-A76`."""
    model_name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if model_name:
        return model_name[1].strip()
    implementers = re.findall(r"^CPU implementer\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    cores = Counter(map(_core_name, implementers, parts))
    return ", ".join(f"{count} x {name}" for name, count in sorted(cores.items())) or None


def _core_name(implementer: str, part: str) -> str:
    name = ARM_CORE_NAMES.get(part.lower()) if implementer.lower() == ARM_IMPLEMENTER else None
    return name or f"part {part} of implementer {implementer}"


def _parse_virtual(cpuinfo: str) -> bool | None:
    """Reads the flags of x86 processors; other processors do not report whether they are virtual."""
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return "hypervisor" in flags[1].split() if flags else None


def _read_os_name(root: Path) -> str | None:
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return name[1] if name else None


def _kib_to_bytes(kib: int | None) -> int | None:
    return None if kib is None else 1024 * kib
