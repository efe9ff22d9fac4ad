"""How much memory this process can have: what the machine has, and the limits that were set for it."""

from __future__ import annotations

import logging
import os
import resource
from contextlib import suppress
from pathlib import Path

from .errors import UserError

logger = logging.getLogger(__name__)

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory(bytes_needed: int, what: str, advice: str) -> None:
    """Refuses work that certainly does not fit into memory, and warns of work that does not fit now.

    Args:
        bytes_needed: What it takes at least.
        what: What takes the memory, as the subject of a sentence.
        advice: What to do, as a sentence.

    Raises:
        UserError: The machine or a limit such as `ulimit -v` has less memory.
    """
    limit, available = read_memory_limit(), read_available_memory()
    if limit is not None and bytes_needed > limit:
        raise UserError(
            f"{what} takes at least {bytes_needed / 2**30:.1f} GiB of memory, but this process can have "
            f"{limit / 2**30:.1f} GiB. {advice}"
        )
    if available is not None and bytes_needed > available:
        logger.warning(
            "%s takes at least %.1f GiB of memory, but only %.1f GiB are free. %s",
            what, bytes_needed / 2**30, available / 2**30, advice,
        )  # fmt: skip


def read_memory_limit() -> int | None:
    """The bytes that this process can have at most: memory and swap of the machine, or a lower limit.

    Limits are those of the control group, of a container for example, and `ulimit -v`.

    Returns:
        None if the system does not tell.
    """
    limits = [_read_total(), _read_address_space_limit(), *(_read_cgroup_limit(file) for file in CGROUP_LIMITS)]
    return min((limit for limit in limits if limit is not None), default=None)


def read_available_memory() -> int | None:
    """The bytes that are free now without swapping out other programs; None if the system does not tell."""
    return _read_meminfo().get("MemAvailable")


def _read_total() -> int | None:
    sizes = _read_meminfo()
    if "MemTotal" in sizes:
        return sizes["MemTotal"] + sizes.get("SwapTotal", 0)
    with suppress(ValueError, OSError):  # not known to this system
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _read_meminfo() -> dict[str, int]:
    """The lines of /proc/meminfo, in bytes; empty on other systems than Linux."""
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return {}
    fields = [line.replace(":", " ").split() for line in lines]
    return {field[0]: int(field[1]) * 1024 for field in fields if len(field) == 3 and field[2] == "kB"}


def _read_address_space_limit() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _read_cgroup_limit(file: Path) -> int | None:
    try:
        text = file.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
