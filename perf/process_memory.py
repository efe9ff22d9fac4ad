"""What the system tells of a running process, from outside: memory, and traffic with the disk. Linux only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class MemorySampler:
    """The largest value of each line that /proc tells of a process."""

    peaks: dict[str, int] = field(default_factory=dict)

    def sample(self, process: int) -> None:
        for name in ("status", "io"):
            for key, value in parse_proc_file(Path(f"/proc/{process}/{name}")).items():
                self.peaks[key] = max(value, self.peaks.get(key, 0))

    def peak_bytes(self, key: str) -> int:
        return 1024 * self.peaks.get(key, 0)


@contextmanager
def sample_memory(process: int, interval: float) -> Iterator[MemorySampler]:
    """Looks at a process every so many seconds."""
    watch, ended = MemorySampler(), threading.Event()
    sampler = threading.Thread(target=_sample_until, args=(process, watch, ended, interval), daemon=True)
    sampler.start()
    try:
        yield watch
    finally:
        ended.set()
        sampler.join()


def read_process_rss(process: int) -> int:
    """Bytes that a process holds in memory now; 0 where it is gone."""
    return 1024 * parse_proc_file(Path(f"/proc/{process}/status")).get("VmRSS", 0)


def parse_proc_file(file: Path) -> dict[str, int]:
    """The lines `key: number` of a file in /proc; none where the process is gone."""
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _sample_until(process: int, watch: MemorySampler, ended: threading.Event, interval: float) -> None:
    while not ended.wait(interval):
        watch.sample(process)
