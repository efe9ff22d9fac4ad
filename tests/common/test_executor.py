"""What runs units of work: the order of results in this process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgepress.common.executor import THIS_PROCESS, Check, open_executor


@contextmanager
def no_check() -> Iterator[Check]:
    yield lambda: None


def test_units_run_in_order_and_are_prepared_for_once() -> None:
    prepared: list[int] = []

    def prepare() -> Callable[[int], int]:
        prepared.append(1)
        return lambda number: number**2

    with open_executor(None, no_check) as executor:
        assert list(executor.map(prepare, range(5))) == [0, 1, 4, 9, 16]
    assert prepared == [1]


def test_results_of_threads_are_in_the_order_of_the_units() -> None:
    second_ended = threading.Event()

    def run(number: int) -> int:
        if number:
            second_ended.set()
        else:
            second_ended.wait(5)
        return number

    assert list(THIS_PROCESS.map(lambda: run, [0, 1], threads=True)) == [0, 1]


def test_units_are_taken_one_by_one() -> None:
    done: list[int] = []
    results = THIS_PROCESS.map(lambda: done.append, [1, 2, 3])
    next(results)
    assert done == [1]


def test_nothing_imports_ray_unless_it_runs() -> None:
    code = "import sys, edgepress.evaluate.evaluator, edgepress.quantize.run; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
