"""Runs functions in one thread per CPU core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Applies a function to all items, and yields the results in the order of the items."""
    with thread_pool() as pool:
        yield from pool.map(function, items)


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Opens a pool with one thread per core. On an error or Ctrl-C, pending tasks are cancelled."""
    pool = ThreadPoolExecutor(count_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def count_cores() -> int:
    """Returns the number of cores that this process may use, where the system restricts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
