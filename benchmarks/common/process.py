"""What a command costs, seen from outside: time, memory and traffic with the disk. Linux only."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import click

from ...perf.process_memory import MemorySampler, parse_proc_file, sample_memory

SAMPLE_INTERVAL_S = 0.05  # seconds between two looks
LOG_TAIL = 2000  # characters of a failed command's log that are shown


@dataclass(frozen=True)
class Cost:
    """Bytes, but for the time. Memory and traffic of the command's own children are not seen.

    cpu: seconds of all its threads, and of its children's.
    peak_rss: the largest resident set, of which memory of its own and mapped files peak apart, as sampled.
    read, written: what went through the disk. read_calls, written_calls: what was asked for, served from the page cache
    or not.
    """

    seconds: float
    cpu: float
    peak_rss: int
    peak_anonymous: int
    peak_mapped: int
    disk_bytes_read: int
    disk_bytes_written: int
    total_bytes_read: int
    total_bytes_written: int


def measure_command(command: Sequence[str], log: Path) -> Cost:
    """Runs a command, its output going to `log`, and says what it cost.

    Raises:
        ClickException: the command failed; with the end of its log.
    """
    started = monotonic()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        with sample_memory(process.pid, SAMPLE_INTERVAL_S) as watch:
            # Dead but not yet reaped, a process still tells of its traffic.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = monotonic() - started
            watch.sample(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with exit code {process.returncode}:\n{_read_tail(log)}")
    return _make_cost(seconds, usage, watch)


def _make_cost(seconds: float, usage: resource.struct_rusage, watch: MemorySampler) -> Cost:
    # The kernel counts a child from before its exec, as large as we are then: below our own peak that says nothing.
    child_peak = 1024 * usage.ru_maxrss
    parent_peak = 1024 * parse_proc_file(Path("/proc/self/status")).get("VmHWM", 0)
    sampled = watch.peak_bytes("VmHWM")
    return Cost(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=max(sampled, child_peak) if child_peak > parent_peak else sampled,
        peak_anonymous=watch.peak_bytes("RssAnon"),
        peak_mapped=watch.peak_bytes("RssFile"),
        disk_bytes_read=watch.peaks.get("read_bytes", 0),
        disk_bytes_written=watch.peaks.get("write_bytes", 0),
        total_bytes_read=watch.peaks.get("rchar", 0),
        total_bytes_written=watch.peaks.get("wchar", 0),
    )


def _read_tail(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-LOG_TAIL:].strip()
