"""The cost of a command, measured from outside: time, memory and disk traffic. Linux only."""

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

SAMPLE_INTERVAL_S = 0.05
LOG_TAIL = 2000  # characters of a failed command's log to show


@dataclass(frozen=True)
class Cost:
    """The cost of a process. Memory and traffic of its own child processes are not included.

    Attributes:
        seconds: Wall time.
        cpu: CPU time in seconds of all its threads and its children.
        peak_rss: Largest resident set in bytes.
        peak_anonymous: Largest anonymous part of the resident set in bytes, as sampled.
        peak_mapped: Largest part of the resident set that is mapped files, in bytes, as sampled.
        disk_bytes_read: Bytes read from the disk.
        disk_bytes_written: Bytes written to the disk.
        total_bytes_read: Bytes read, from the disk or from the page cache.
        total_bytes_written: Bytes written, to the disk or to the page cache.
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
    """Runs a command and measures its cost.

    Args:
        command: The program and its arguments.
        log: File for its standard output and standard error.

    Raises:
        ClickException: The command failed. The message holds the end of its log.
    """
    started = monotonic()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        with sample_memory(process.pid, SAMPLE_INTERVAL_S) as sampler:
            # The kernel still reports the traffic of a process that has exited until it is reaped.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = monotonic() - started
            sampler.sample(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text("utf-8", errors="replace")[-LOG_TAIL:].strip()
        raise click.ClickException(f"{' '.join(command)} failed with exit code {process.returncode}:\n{tail}")
    return _make_cost(seconds, usage, sampler)


def _make_cost(seconds: float, usage: resource.struct_rusage, sampler: MemorySampler) -> Cost:
    # The kernel counts a child from before its exec, when it is as large as its parent. So a child's peak that is
    # below the parent's says nothing.
    child_peak = 1024 * usage.ru_maxrss
    parent_peak = 1024 * parse_proc_file(Path("/proc/self/status")).get("VmHWM", 0)
    sampled = sampler.peak_bytes("VmHWM")
    return Cost(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=max(sampled, child_peak) if child_peak > parent_peak else sampled,
        peak_anonymous=sampler.peak_bytes("RssAnon"),
        peak_mapped=sampler.peak_bytes("RssFile"),
        disk_bytes_read=sampler.peaks.get("read_bytes", 0),
        disk_bytes_written=sampler.peaks.get("write_bytes", 0),
        total_bytes_read=sampler.peaks.get("rchar", 0),
        total_bytes_written=sampler.peaks.get("wchar", 0),
    )
