"""What the machine was allowed to draw and how warm it was: power mode, clocks, temperatures, throttling.

What the system does not tell is missing from the answer, never guessed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .machine import read

PATIENCE = 5  # seconds that a tool may take to answer
# The bits of a Raspberry Pi's get_throttled (Raspberry Pi documentation, vcgencmd).
THROTTLED = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since boot",
    17: "frequency capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}


class Clock(BaseModel):
    """Cores that share a clock: their numbers, its governor, and in which frequencies, in Hz, it may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: str | None
    governor: str | None
    least: int | None
    most: int | None


class Power(BaseModel):
    """mode: a Jetson's, by nvpmodel. clocks: by cpufreq; none where it says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str | None
    clocks: list[Clock]


def power(root: Path = Path("/")) -> Power:
    """How the machine is set; `root` is where its /sys is."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    return Power(mode=_mode(), clocks=[_clock(policy) for policy in policies])


def temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Degrees Celsius by zone; zones that are off tell none."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        said = read(zone / "temp") or ""
        if re.fullmatch(r"-?\d+", said):
            number = zone.name.removeprefix("thermal_zone")
            found[f"{read(zone / 'type') or 'zone'} ({number})"] = int(said) / 1000
    return found


def throttling(root: Path = Path("/")) -> dict[str, str]:
    """What counts or tells that clocks were lowered, by where it is read."""
    found = {}
    said = re.search(r"throttled=(0x[0-9a-fA-F]+)", _answer("vcgencmd", "get_throttled"))
    if said:
        found["vcgencmd get_throttled"] = _bits(int(said[1], 16))
    counts = [read(file) or "" for file in (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_*_count")]
    if counts:
        found["core throttle count"] = str(sum(int(count) for count in counts if count.isdigit()))
    return found


def _mode() -> str | None:
    found = re.search(r"NV Power Mode:\s*(\S+)", _answer("nvpmodel", "-q"))
    return found[1] if found else None


def _clock(policy: Path) -> Clock:
    return Clock(
        cores=read(policy / "related_cpus"),
        governor=read(policy / "scaling_governor"),
        least=_hertz(read(policy / "scaling_min_freq")),
        most=_hertz(read(policy / "scaling_max_freq")),
    )


def _hertz(kilohertz: str | None) -> int | None:
    return 1000 * int(kilohertz) if kilohertz and kilohertz.isdigit() else None


def _bits(state: int) -> str:
    return ", ".join(name for bit, name in THROTTLED.items() if state >> bit & 1) or "never since boot"


def _answer(tool: str, *words: str) -> str:
    """What a tool says; nothing where it is not there, fails, or hangs."""
    path = shutil.which(tool)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
