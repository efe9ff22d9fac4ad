"""What runs units of work: the order of results in this process, and what is refused before a cluster is there."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edgepress.common import executor as module
from edgepress.common.errors import UserError
from edgepress.common.executor import THIS_PROCESS, Check, check_cluster, open_executor


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


def test_no_address_needs_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    check_cluster(None)
    with pytest.raises(UserError, match=r"needs the package 'ray'.*pip install 'edgepress\[ray\]'"):
        check_cluster("local")


@pytest.mark.parametrize("address", ["", "localhost", "host:0", "host:65536", "ray://host:1", "auto", "host:1:2"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"no address of a Ray cluster. Give HOST:PORT"):
        check_cluster(address)


def test_an_address_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"does not answer \(.*\). Start it"):
            check_cluster(f"127.0.0.1:{free.getsockname()[1]}")


def test_nothing_imports_ray_unless_it_runs() -> None:
    code = "import sys, edgepress.evaluate.evaluator, edgepress.quantize.run; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
