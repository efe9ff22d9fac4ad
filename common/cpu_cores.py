"""The processor's cores: which of them this process may use, and which are fast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CPU_FOLDER = Path("/sys/devices/system/cpu")
SPEED_FILES = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")  # of a core; capacity is known on arm64 only
SAME_SPEED = 0.8  # of the fastest: cores of one kind may be clocked a little differently


def list_usable_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may use, where the system restricts them."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def list_fast_cores(cores: tuple[int, ...], folder: Path = CPU_FOLDER) -> tuple[int, ...]:
    """Those cores that are about as fast as the fastest.

    Args:
        cores: Numbers of cores.
        folder: Where Linux describes them.

    Returns:
        All of them if the system does not tell how fast they are.
    """
    for file in SPEED_FILES:
        speeds = {core: _read_number(folder / f"cpu{core}" / file) for core in cores}
        if cores and all(speeds.values()):
            fastest = max(speeds.values())
            return tuple(core for core, speed in speeds.items() if speed >= SAME_SPEED * fastest)
    return cores


@contextmanager
def run_on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """Lets the calling thread run on these cores only, and threads that it creates meanwhile for as long as they live.

    Args:
        cores: Numbers of cores; empty to change nothing.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    earlier = os.sched_getaffinity(0)
    with suppress(OSError):  # cores may have been switched off since they were listed
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, earlier)


def _read_number(file: Path) -> int:
    """The number in a file; 0 if there is none."""
    try:
        text = file.read_text("ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
