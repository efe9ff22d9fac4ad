"""What is said of machines, from trees of /proc, /sys and /etc as boards have them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from helpers.planted_files import plant

from edgepress.perf.machine import read_machine_info


def arm(*parts: str, maker: str = "0x41") -> str:
    """Like /proc/cpuinfo of arm64."""
    blocks = [f"processor\t: {n}\nCPU implementer\t: {maker}\nCPU part\t: {part}\n" for n, part in enumerate(parts)]
    return "\n".join(blocks)


def test_a_raspberry_pi(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": arm(*["0xd0b"] * 4) + "\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
        "proc/meminfo": "MemTotal:        8245000 kB\nMemFree:  1 kB\nSwapTotal:        204784 kB\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }
    found = read_machine_info(plant(tmp_path, files))
    assert found.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.cpu == "4 x Cortex-A76"
    assert (found.memory, found.swap) == (8245000 * 1024, 204784 * 1024)
    assert found.system == "Debian GNU/Linux 12 (bookworm)"
    assert (found.virtual, found.release) == (None, None)


def test_two_kinds_of_cores(tmp_path: Path) -> None:
    found = read_machine_info(plant(tmp_path, {"proc/cpuinfo": arm(*["0xd05"] * 4, *["0xd0b"] * 4)}))
    assert found.cpu == "4 x Cortex-A55, 4 x Cortex-A76"


def test_cores_that_are_not_known_keep_their_numbers(tmp_path: Path) -> None:
    found = read_machine_info(plant(tmp_path, {"proc/cpuinfo": arm("0xd0b", "0x004", maker="0x4e")}))
    assert found.cpu == "1 x part 0x004 of implementer 0x4e, 1 x part 0xd0b of implementer 0x4e"


def test_a_jetson(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/cpuinfo": arm(*["0xd42"] * 6),
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n",
    }
    found = read_machine_info(plant(tmp_path, files))
    assert (found.cpu, found.release) == ("6 x Cortex-A78AE", "# R36 (release), REVISION: 4.3")


def test_a_computer_with_dmi_tables(tmp_path: Path) -> None:
    files = {
        "sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "sys/class/dmi/id/product_name": "20XW\n",
        "proc/cpuinfo": "processor : 0\nmodel name\t: A CPU @ 3 GHz\nflags\t\t: fpu sse\n",
    }
    found = read_machine_info(plant(tmp_path, files))
    assert (found.model, found.cpu, found.virtual) == ("LENOVO 20XW", "A CPU @ 3 GHz", False)


def test_a_virtual_machine_without_a_name(tmp_path: Path) -> None:
    files = {
        "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.\n",
        "sys/class/dmi/id/product_name": "Default string\n",
        "proc/cpuinfo": "model name : A CPU\nflags : fpu hypervisor\n",
    }
    found = read_machine_info(plant(tmp_path, files))
    assert (found.model, found.virtual) == (None, True)


def test_what_no_file_says_is_not_known(tmp_path: Path) -> None:
    found = read_machine_info(tmp_path)
    unknown = {"model", "cpu", "virtual", "memory", "swap", "system", "release"}
    assert {name for name, value in found if value is None} == unknown


def test_this_machine() -> None:
    found = read_machine_info()
    assert found.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (found.cores, found.kernel) == (len(os.sched_getaffinity(0)), os.uname().release)
    assert (found.architecture, found.python) == (os.uname().machine, platform.python_version())
