"""TODO"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's results in the order of the items, from a thread for each core."""
    with _thread_pool() as pool:
        yield from pool.map(function, items)


@contextmanager
def _thread_pool() -> Iterator[ThreadPoolExecutor]:
    """One for each core; what has not begun when an error or Ctrl-C comes is dropped."""
    pool = ThreadPoolExecutor(_count_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _count_cores() -> int:
    """Those that this process may use, where the system tells that apart."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
