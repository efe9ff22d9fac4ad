"""The measured costs of child processes whose real costs are known."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from edgepress.benchmarks.common.process import measure_command

HOLDS_200_MB_AND_WRITES_50_MB = """
import mmap, os, sys, time
from pathlib import Path

data = bytearray(b"x") * 200_000_000
path = Path(sys.argv[1])
with path.open("wb") as file:
    file.write(data[:50_000_000])
    file.flush()
    os.fsync(file.fileno())
with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    sum(mapped[offset] for offset in range(0, len(mapped), 4096))
    time.sleep(0.5)
"""


@pytest.mark.slow
def test_memory_time_and_traffic_of_a_child(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_200_MB_AND_WRITES_50_MB, str(tmp_path / "file")]
    cost = measure_command(command, tmp_path / "log")
    assert 200e6 <= cost.peak_anonymous <= 270e6
    assert 50e6 <= cost.peak_mapped <= 80e6
    assert 250e6 <= cost.peak_rss <= 350e6
    assert 50e6 <= cost.total_bytes_written <= 51e6
    assert cost.disk_bytes_written == 0 or 50e6 <= cost.disk_bytes_written <= 60e6  # 0 on a file system in memory
    assert 0.5 <= cost.seconds <= 30
    assert 0.01 <= cost.cpu <= cost.seconds


@pytest.mark.slow
def test_a_small_child_of_a_large_parent_has_a_small_peak(tmp_path: Path) -> None:
    parent = bytearray(b"x") * 300_000_000
    cost = measure_command([sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path / "log")
    assert len(parent) > cost.peak_rss > 1e6


@pytest.mark.slow
def test_cpu_time_includes_all_threads(tmp_path: Path) -> None:
    """hashlib releases the interpreter lock while it derives a key."""
    work = "import hashlib, threading as t; arguments = ('sha256', b'', b'', 1_000_000); "
    work += "both = [t.Thread(target=hashlib.pbkdf2_hmac, args=arguments) for _ in 'ab']; [x.start() for x in both]"
    one_thread = measure_command([sys.executable, "-c", work.replace("'ab'", "'a'")], tmp_path / "log").cpu
    assert measure_command([sys.executable, "-c", work], tmp_path / "log").cpu > 1.4 * one_thread


def test_the_last_write_is_counted(tmp_path: Path) -> None:
    """The last sample is taken after the process has ended."""
    write = "import sys; from pathlib import Path; Path(sys.argv[1]).write_bytes(bytes(20_000_000))"
    cost = measure_command([sys.executable, "-c", write, str(tmp_path / "file")], tmp_path / "log")
    assert cost.total_bytes_written >= 20e6


def test_the_error_of_a_failed_command_holds_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('out'); raise SystemExit('it broke')"]
    with pytest.raises(click.ClickException, match=r"exit code 1:\n(?s:.)*it broke"):
        measure_command(command, tmp_path / "log")
    assert "out" in (tmp_path / "log").read_text()
