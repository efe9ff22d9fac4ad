"""What generating images takes of a machine, so that a cluster gives each process enough."""

from __future__ import annotations

from pathlib import Path

from ...common.threads import count_cores
from ...storage.files import folder_bytes
from .candidates import ImageSource

BASE_MEMORY = 2**30  # bytes of a process with its libraries, and of activations
PIPELINES = ("diffusers", "optimum")


def count_threads(source: ImageSource) -> int:
    """Returns how many threads this process generates images with: those of torch, or for an export all cores."""
    if source.kind not in PIPELINES:
        return count_cores()
    import torch

    return torch.get_num_threads()


def set_threads(source: ImageSource, threads: int) -> None:
    """Sets how many threads a pipeline uses. An export uses all cores."""
    if source.kind in PIPELINES:
        import torch

        torch.set_num_threads(threads)


def estimate_memory(source: ImageSource) -> int:
    """Returns about how many bytes of memory generating images takes: the process, and weights that become wider."""
    return BASE_MEMORY + (2 * folder_bytes(source.folder) if source.folder != Path() else 0)
