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

from ..runtime.bench.watch import Watch, numbers, watching

INTERVAL = 0.05  # seconds between two looks
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
    peak_own: int
    peak_mapped: int
    read: int
    written: int
    read_calls: int
    written_calls: int


def measured(words: Sequence[str], log: Path) -> Cost:
    """Runs a command, its output going to `log`, and says what it cost.

    Raises:
        ClickException: the command failed; with the end of its log.
    """
    started = monotonic()
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT) as process:
        with watching(process.pid, INTERVAL) as watch:
            # Dead but not yet reaped, a process still tells of its traffic.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = monotonic() - started
            watch.look(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(words)} ended with exit code {process.returncode}:\n{_tail(log)}")
    return _cost(seconds, usage, watch)


def _cost(seconds: float, usage: resource.struct_rusage, watch: Watch) -> Cost:
    # The kernel counts a child from before its exec, as large as we are then: below our own peak that says nothing.
    waited_peak = 1024 * usage.ru_maxrss
    ours = 1024 * numbers(Path("/proc/self/status")).get("VmHWM", 0)
    sampled = watch.kilobytes("VmHWM")
    return Cost(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=max(sampled, waited_peak) if waited_peak > ours else sampled,
        peak_own=watch.kilobytes("RssAnon"),
        peak_mapped=watch.kilobytes("RssFile"),
        read=watch.seen.get("read_bytes", 0),
        written=watch.seen.get("write_bytes", 0),
        read_calls=watch.seen.get("rchar", 0),
        written_calls=watch.seen.get("wchar", 0),
    )


def _tail(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-LOG_TAIL:].strip()
