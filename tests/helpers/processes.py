"""Finds processes that were started by a test."""

from __future__ import annotations

import os
from pathlib import Path


def find_workers() -> list[int]:
    """Returns the ids of the workers of a benchmark that this process has started."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            command = (process / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and "edgepress.perf.worker" in command:
            workers.append(int(process.name))
    return workers
