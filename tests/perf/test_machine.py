"""Descriptions of machines, from trees of /proc, /sys and /etc as boards have them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from helpers.system_files import write_tree

from edgepress.perf.machine import read_machine_info


def make_arm_cpuinfo(*parts: str, vendor: str = "0x41") -> str:
    """Makes text like /proc/cpuinfo on arm64."""
    blocks = [f"processor\t: {n}\nCPU implementer\t: {vendor}\nCPU part\t: {part}\n" for n, part in enumerate(parts)]
    return "\n".join(blocks)


def test_raspberry_pi(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": make_arm_cpuinfo(*["0xd0b"] * 4) + "\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
        "proc/meminfo": "MemTotal:        8245000 kB\nMemFree:  1 kB\nSwapTotal:        204784 kB\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }
    info = read_machine_info(write_tree(tmp_path, files))
    assert info.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert info.cpu == "4 x Cortex-A76"
    assert (info.memory, info.swap) == (8245000 * 1024, 204784 * 1024)
    assert info.system == "Debian GNU/Linux 12 (bookworm)"
    assert (info.virtual, info.release) == (None, None)


def test_two_types_of_cores(tmp_path: Path) -> None:
    info = read_machine_info(write_tree(tmp_path, {"proc/cpuinfo": make_arm_cpuinfo(*["0xd05"] * 4, *["0xd0b"] * 4)}))
    assert info.cpu == "4 x Cortex-A55, 4 x Cortex-A76"


def test_unknown_cores_keep_their_part_numbers(tmp_path: Path) -> None:
    cpuinfo = make_arm_cpuinfo("0xd0b", "0x004", vendor="0x4e")
    info = read_machine_info(write_tree(tmp_path, {"proc/cpuinfo": cpuinfo}))
    assert info.cpu == "1 x part 0x004 of implementer 0x4e, 1 x part 0xd0b of implementer 0x4e"


def test_jetson(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/cpuinfo": make_arm_cpuinfo(*["0xd42"] * 6),
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n",
    }
    info = read_machine_info(write_tree(tmp_path, files))
    assert (info.cpu, info.release) == ("6 x Cortex-A78AE", "# R36 (release), REVISION: 4.3")


def test_computer_with_dmi_tables(tmp_path: Path) -> None:
    files = {
        "sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "sys/class/dmi/id/product_name": "20XW\n",
        "proc/cpuinfo": "processor : 0\nmodel name\t: A CPU @ 3 GHz\nflags\t\t: fpu sse\n",
    }
    info = read_machine_info(write_tree(tmp_path, files))
    assert (info.model, info.cpu, info.virtual) == ("LENOVO 20XW", "A CPU @ 3 GHz", False)


def test_virtual_machine_without_a_name(tmp_path: Path) -> None:
    files = {
        "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.\n",
        "sys/class/dmi/id/product_name": "Default string\n",
        "proc/cpuinfo": "model name : A CPU\nflags : fpu hypervisor\n",
    }
    info = read_machine_info(write_tree(tmp_path, files))
    assert (info.model, info.virtual) == (None, True)


def test_missing_files_give_none(tmp_path: Path) -> None:
    info = read_machine_info(tmp_path)
    unknown = {"model", "cpu", "virtual", "memory", "swap", "system", "release"}
    assert {name for name, value in info if value is None} == unknown


def test_this_machine() -> None:
    info = read_machine_info()
    assert info.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (info.cores, info.kernel) == (len(os.sched_getaffinity(0)), os.uname().release)
    assert (info.architecture, info.python) == (os.uname().machine, platform.python_version())
