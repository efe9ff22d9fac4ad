"""The processor's cores: which are fast, and threads that run on some of them only."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers.system_files import write_tree

from edgepress.common.cpu_cores import list_fast_cores, list_usable_cores, run_on_cores

CORES = tuple(range(8))


def test_fast_cores_are_those_of_the_largest_capacity(tmp_path: Path) -> None:
    capacities = [530] * 4 + [1024, 1005, 1024, 1005]  # an RK3588, whose fast cores are clocked a little differently
    write_tree(tmp_path, {f"cpu{core}/cpu_capacity": f"{capacity}\n" for core, capacity in enumerate(capacities)})
    assert list_fast_cores(CORES, tmp_path) == (4, 5, 6, 7)
    assert list_fast_cores((0, 1, 5), tmp_path) == (5,)


def test_frequencies_are_read_where_there_are_no_capacities(tmp_path: Path) -> None:
    frequencies = [1_800_000] * 6 + [2_400_000] * 2
    write_tree(tmp_path, {f"cpu{core}/cpufreq/cpuinfo_max_freq": str(hz) for core, hz in enumerate(frequencies)})
    assert list_fast_cores(CORES, tmp_path) == (6, 7)


def test_all_cores_are_fast_if_the_system_does_not_tell(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cpu0/cpu_capacity": "1024", "cpu1/cpu_capacity": "none"})
    assert list_fast_cores((0, 1), tmp_path) == (0, 1)
    assert list_fast_cores((), tmp_path) == ()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no threads to cores")
def test_a_thread_and_those_that_it_creates_run_on_the_cores() -> None:
    usable, seen = list_usable_cores(), []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
    with run_on_cores(usable[:1]):
        assert os.sched_getaffinity(0) == {usable[0]}
        thread.start()
        thread.join()
    assert seen == [{usable[0]}]
    assert tuple(sorted(os.sched_getaffinity(0))) == usable
    with run_on_cores((100_000,)):  # which does not exist
        assert tuple(sorted(os.sched_getaffinity(0))) == usable
