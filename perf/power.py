"""What the machine was allowed to draw and how warm it was: power mode, clocks, temperatures, throttling.

What the system does not tell is missing from the answer, never guessed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .machine import read_text

TOOL_TIMEOUT_S = 5  # seconds that a tool may take to answer
# The bits of a Raspberry Pi's get_throttled (Raspberry Pi documentation, vcgencmd).
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


class CpufreqPolicy(BaseModel):
    """Cores that share a clock: their numbers, its governor, and in which frequencies, in Hz, it may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: str | None
    governor: str | None
    min_hz: int | None
    max_hz: int | None


class PowerState(BaseModel):
    """mode: a Jetson's, by nvpmodel. clocks: by cpufreq; none where it says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str | None
    policies: list[CpufreqPolicy]


def read_power_state(root: Path = Path("/")) -> PowerState:
    """How the machine is set; `root` is where its /sys is."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    return PowerState(mode=_read_nvpmodel(), policies=[_read_policy(policy) for policy in policies])


def read_temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Degrees Celsius by zone; zones that are off tell none."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        said = read_text(zone / "temp") or ""
        if re.fullmatch(r"-?\d+", said):
            number = zone.name.removeprefix("thermal_zone")
            found[f"{read_text(zone / 'type') or 'zone'} ({number})"] = int(said) / 1000
    return found


def read_throttling(root: Path = Path("/")) -> dict[str, str]:
    """What counts or tells that clocks were lowered, by where it is read."""
    found = {}
    said = re.search(r"throttled=(0x[0-9a-fA-F]+)", _run_tool("vcgencmd", "get_throttled"))
    if said:
        found["vcgencmd get_throttled"] = _decode_throttled(int(said[1], 16))
    counts = [
        read_text(file) or "" for file in (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_*_count")
    ]
    if counts:
        found["core throttle count"] = str(sum(int(count) for count in counts if count.isdigit()))
    return found


def _read_nvpmodel() -> str | None:
    found = re.search(r"NV Power Mode:\s*(\S+)", _run_tool("nvpmodel", "-q"))
    return found[1] if found else None


def _read_policy(policy: Path) -> CpufreqPolicy:
    return CpufreqPolicy(
        cores=read_text(policy / "related_cpus"),
        governor=read_text(policy / "scaling_governor"),
        min_hz=_khz_to_hz(read_text(policy / "scaling_min_freq")),
        max_hz=_khz_to_hz(read_text(policy / "scaling_max_freq")),
    )


def _khz_to_hz(kilohertz: str | None) -> int | None:
    return 1000 * int(kilohertz) if kilohertz and kilohertz.isdigit() else None


def _decode_throttled(state: int) -> str:
    return ", ".join(name for bit, name in THROTTLED_BITS.items() if state >> bit & 1) or "never since boot"


def _run_tool(tool: str, *words: str) -> str:
    """What a tool says; nothing where it is not there, fails, or hangs."""
    path = shutil.which(tool)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
