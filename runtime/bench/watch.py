"""What the system tells of a running process, from outside: memory, and traffic with the disk. Linux only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Watch:
    """The largest value of each line that /proc tells of a process."""

    seen: dict[str, int] = field(default_factory=dict)

    def look(self, process: int) -> None:
        for name in ("status", "io"):
            for key, value in numbers(Path(f"/proc/{process}/{name}")).items():
                self.seen[key] = max(value, self.seen.get(key, 0))

    def kilobytes(self, key: str) -> int:
        return 1024 * self.seen.get(key, 0)


@contextmanager
def watching(process: int, interval: float) -> Iterator[Watch]:
    """Looks at a process every so many seconds."""
    watch, ended = Watch(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(process, watch, ended, interval), daemon=True)
    sampler.start()
    try:
        yield watch
    finally:
        ended.set()
        sampler.join()


def resident(process: int) -> int:
    """Bytes that a process holds in memory now; 0 where it is gone."""
    return 1024 * numbers(Path(f"/proc/{process}/status")).get("VmRSS", 0)


def numbers(file: Path) -> dict[str, int]:
    """The lines `key: number` of a file in /proc; none where the process is gone."""
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _sample(process: int, watch: Watch, ended: threading.Event, interval: float) -> None:
    while not ended.wait(interval):
        watch.look(process)
