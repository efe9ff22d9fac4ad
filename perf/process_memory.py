"""Samples the memory and the disk traffic of another process from /proc. Linux only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class MemorySampler:
    """The peak values of a process.

    Attributes:
        peaks: The largest value of each line of /proc/PID/status and /proc/PID/io.
    """

    peaks: dict[str, int] = field(default_factory=dict)

    def sample(self, process: int) -> None:
        """Reads the current values of a process."""
        for name in ("status", "io"):
            for key, value in parse_proc_file(Path(f"/proc/{process}/{name}")).items():
                self.peaks[key] = max(value, self.peaks.get(key, 0))

    def peak_bytes(self, key: str) -> int:
        """Returns the peak in bytes of a line that is in kB."""
        return 1024 * self.peaks.get(key, 0)


@contextmanager
def sample_memory(process: int, interval: float) -> Iterator[MemorySampler]:
    """Samples the memory of a process in a thread, every `interval` seconds."""
    sampler, stop = MemorySampler(), threading.Event()

    def run() -> None:
        while not stop.wait(interval):
            sampler.sample(process)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield sampler
    finally:
        stop.set()
        thread.join()


def read_process_rss(process: int) -> int:
    """Returns the resident set size of a process in bytes; 0 if the process has ended."""
    return 1024 * parse_proc_file(Path(f"/proc/{process}/status")).get("VmRSS", 0)


def parse_proc_file(file: Path) -> dict[str, int]:
    """Parses the lines `key: number` of a file in /proc; empty if the process has ended."""
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
