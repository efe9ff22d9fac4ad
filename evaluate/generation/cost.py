"""Measures what generating images costs: seconds of each image, and the memory that loading and running a source takes.

The peak is that of the whole process, from the moment before the source is loaded. What the process had then, Python
and the libraries that are loaded for any source, is subtracted: a device needs that once for any of them.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ...common.memory import malloc_trim
from ...storage.files import write_json

COST_NAME = "cost.json"  # in the folder of a batch
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


@dataclass(frozen=True)
class BatchCost:
    """What generating a batch cost.

    Attributes:
        seconds: Wall time of the batch.
        num_images: Number of images in it.
        peak_memory: Largest resident memory in bytes that the source added to the process until then, from before it
            was loaded; None where the system does not tell.
    """

    seconds: float
    num_images: int
    peak_memory: int | None


class CostMeter:
    """Measures a source. It is made before the source is loaded.

    Args:
        read_memory: Returns the memory of what generates the images, if that is another process; None: this one.
    """

    def __init__(self, read_memory: Callable[[], int | None] | None = None) -> None:
        self._read_memory, self._largest = read_memory, 0
        self._base = None if read_memory else _reset_peak()
        self._start = perf_counter()

    def start(self) -> None:
        """Begins a batch."""
        self._start = perf_counter()

    def finish(self, num_images: int) -> BatchCost:
        """Ends a batch."""
        seconds = perf_counter() - self._start
        return BatchCost(seconds, num_images, self._measure_peak())

    def _measure_peak(self) -> int | None:
        if self._read_memory is not None:
            self._largest = max(self._largest, self._read_memory() or 0)
            return self._largest or None
        peak = _read_status("VmHWM")
        return None if self._base is None or peak is None else max(peak - self._base, 0)


def save_cost(cost: BatchCost, folder: Path) -> None:
    """Stores the cost of a batch beside its images."""
    content = {"seconds": cost.seconds, "num_images": cost.num_images, "peak_memory": cost.peak_memory}
    write_json(content, folder / COST_NAME)


def load_cost(folder: Path) -> BatchCost | None:
    """The cost of a batch; None if it is not stored, as by earlier releases."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads((folder / COST_NAME).read_text("utf-8"))
        peak = content["peak_memory"]
        return BatchCost(float(content["seconds"]), int(content["num_images"]), None if peak is None else int(peak))
    return None


def _reset_peak() -> int | None:
    """Sets the peak of this process to what it has now, and returns that in bytes; None if the system cannot."""
    gc.collect(1)  # the source before was collected when it closed, and walking all modules' objects takes 0.3 s
    malloc_trim()
    try:
        CLEAR.write_text(RESET_PEAK, "ascii")
    except OSError:
        return None
    return _read_status("VmRSS")


def _read_status(key: str) -> int | None:
    """A line of /proc/self/status in bytes; None if there is none."""
    with suppress(OSError):
        for line in STATUS.read_text("ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return 1024 * int(value.split()[0])
    return None
