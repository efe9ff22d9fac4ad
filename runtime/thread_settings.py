"""With how many threads graphs run on this machine, and on which cores: as the recipe said, or as the user says."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..common.cpu_cores import list_fast_cores, list_usable_cores
from ..storage.pipeline_config import RuntimeConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThreadSettings:
    """How graphs run on this machine's CPU.

    Attributes:
        threads: Threads of a graph; 0: as ONNX Runtime chooses.
        cores: Numbers of the cores that they run on; empty: all that the process may use.
    """

    threads: int = 0
    cores: tuple[int, ...] = ()


ANY_THREADS = ThreadSettings()


def resolve_threads(config: RuntimeConfig, threads: int | None = None) -> ThreadSettings:
    """Resolves threads and cores on this machine; logs where it has fewer cores than threads were asked for.

    Args:
        config: What the export records.
        threads: Threads that the user asks for, instead of those of the export; 0: as ONNX Runtime chooses.
    """
    if threads == 0:
        return ANY_THREADS
    usable = list_usable_cores()
    fast = list_fast_cores(usable) if config.cores == "fast" else usable
    number = config.threads if threads is None else threads
    if number > len(usable):
        source = "of the artifact's recipe" if threads is None else "that were given"
        logger.warning(
            "This process can use %d cores, so it runs %d threads instead of the %d %s.",
            len(usable), len(usable), number, source,
        )  # fmt: skip
        number = len(usable)
    if fast == usable or number > len(fast):
        return ThreadSettings(number)
    return ThreadSettings(number or len(fast), fast)
