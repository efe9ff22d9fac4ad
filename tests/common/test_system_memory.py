"""The memory that a process can have, from files of the system and from limits."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgepress.common import system_memory
from edgepress.common.errors import UserError
from edgepress.common.system_memory import check_memory, read_available_memory, read_memory_limit


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB of memory and 1 GiB of swap, without limits."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {8 * 2**20} kB\nMemAvailable:    {2 * 2**20} kB\nSwapTotal: {2**20} kB\nHugePages_Total:  0\n"
    )
    monkeypatch.setattr(system_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(system_memory, "CGROUP_LIMITS", (tmp_path / "memory.max",))
    return tmp_path


def test_memory_and_swap(system: Path) -> None:
    assert read_memory_limit() == 9 * 2**30
    assert read_available_memory() == 2 * 2**30
    (system / "meminfo").unlink()
    assert read_available_memory() is None
    assert (read_memory_limit() or 0) > 2**27


@pytest.mark.parametrize(
    ("text", "expected"), [("max", 9 * 2**30), (str(2**30), 2**30), ("9223372036854771712", 9 * 2**30)]
)
def test_the_limit_of_a_container(system: Path, text: str, expected: int) -> None:
    (system / "memory.max").write_text(f"{text}\n")
    assert read_memory_limit() == expected


def test_the_limit_of_ulimit() -> None:
    code = "from edgepress.common.system_memory import read_memory_limit; print(read_memory_limit())"
    limit = 2**30
    process = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(process.stdout) == limit


@pytest.mark.usefixtures("system")
def test_too_little_memory_is_refused_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_memory(2**30, "It", "Choose less.")
    assert not caplog.messages
    check_memory(4 * 2**30, "It", "Choose less.")
    assert caplog.messages == ["It takes at least 4.0 GiB of memory, but only 2.0 GiB are free. Choose less."]
    with pytest.raises(UserError, match=r"It takes at least 16\.0 GiB of memory, .* can have 9\.0 GiB\. Choose less\."):
        check_memory(16 * 2**30, "It", "Choose less.")
