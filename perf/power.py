"""Reads power mode, CPU frequencies, temperatures and throttling; what the system does not report is left out."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, NonNegativeInt

from .bench_model import BenchModel
from .machine import read_text

TOOL_TIMEOUT_S = 5
# Bits of `vcgencmd get_throttled` (Raspberry Pi documentation).
THROTTLED_BITS = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since boot",
    17: "frequency capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}


class CpufreqPolicy(BenchModel):
    """A cpufreq policy: cores that share a clock."""

    old_keys: ClassVar[Mapping[str, str]] = {"least": "min_hz", "most": "max_hz"}

    cores: str | None = Field(description="Numbers of the cores.")
    governor: str | None = Field(description="Scaling governor.")
    min_hz: NonNegativeInt | None = Field(description="Lowest frequency that the governor may set.")
    max_hz: NonNegativeInt | None = Field(description="Highest frequency that the governor may set.")


class PowerState(BenchModel):
    """How the power of the machine is configured."""

    old_keys: ClassVar[Mapping[str, str]] = {"clocks": "policies"}

    mode: str | None = Field(description="Power mode of a Jetson, from nvpmodel.")
    policies: list[CpufreqPolicy] = Field(description="cpufreq policies; empty if not reported.")


def read_power_state(root: Path = Path("/")) -> PowerState:
    """Reads how the power is configured.

    Args:
        root: Folder of /sys.
    """
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    return PowerState(mode=_read_nvpmodel(), policies=[_read_policy(policy) for policy in policies])


def read_temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Reads degrees Celsius by thermal zone; zones that are switched off report none."""
    temperatures = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        millidegrees = read_text(zone / "temp") or ""
        if re.fullmatch(r"-?\d+", millidegrees):
            number = zone.name.removeprefix("thermal_zone")
            temperatures[f"{read_text(zone / 'type') or 'zone'} ({number})"] = int(millidegrees) / 1000
    return temperatures


def read_throttling(root: Path = Path("/")) -> dict[str, str]:
    """Reads whether the clocks were lowered, by source."""
    throttling = {}
    throttled = re.search(r"throttled=(0x[0-9a-fA-F]+)", _run_tool("vcgencmd", "get_throttled"))
    if throttled:
        throttling["vcgencmd get_throttled"] = _decode_throttled(int(throttled[1], 16))
    files = (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_*_count")
    counts = [read_text(file) or "" for file in files]
    if counts:
        throttling["core throttle count"] = str(sum(int(count) for count in counts if count.isdigit()))
    return throttling


def _read_nvpmodel() -> str | None:
    mode = re.search(r"NV Power Mode:\s*(\S+)", _run_tool("nvpmodel", "-q"))
    return mode[1] if mode else None


def _read_policy(policy: Path) -> CpufreqPolicy:
    return CpufreqPolicy(
        cores=read_text(policy / "related_cpus"),
        governor=read_text(policy / "scaling_governor"),
        min_hz=_khz_to_hz(read_text(policy / "scaling_min_freq")),
        max_hz=_khz_to_hz(read_text(policy / "scaling_max_freq")),
    )


def _khz_to_hz(khz: str | None) -> int | None:
    return 1000 * int(khz) if khz and khz.isdigit() else None


def _decode_throttled(state: int) -> str:
    return ", ".join(name for bit, name in THROTTLED_BITS.items() if state >> bit & 1) or "never since boot"


def _run_tool(tool: str, *arguments: str) -> str:
    """Runs a tool and returns its output; empty if the tool is not installed, fails, or hangs."""
    path = shutil.which(tool)
    if path is None:
        return ""
    try:
        process = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout if process.returncode == 0 else ""
