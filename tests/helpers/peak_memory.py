"""What a process of `helpers.commands` does so that the peak of its memory can be compared with that of another."""

from __future__ import annotations

from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path


def quantize_as_a_large_model(peak: Path) -> None:
    """Makes what depends on a model's size small beside its weights, and writes the peak in bytes when it ends."""
    from edgepress.quantize import writer
    from edgepress.quantize.calibration import collector
    from edgepress.storage.checkpoint import write_sharded

    writer.write_sharded = partial(write_sharded, shard_bytes=10_000_000)
    collector.HESSIAN_BYTES = 0  # smaller than H matrices, so that samples of tokens stand for them
    Finalize(None, _write_peak, args=(peak,), exitpriority=0)


def _write_peak(file: Path) -> None:
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    (kilobytes,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    file.write_text(str(1024 * int(kilobytes)))
