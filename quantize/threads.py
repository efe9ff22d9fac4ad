"""Threads in which PyTorch computes with one thread each, so that results do not depend on their number.

PyTorch adds in another order with another number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded() -> Iterator[int]:
    """Lets PyTorch compute in single threads, and yields the number of threads that it had."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield num_threads
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def single_threaded_pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Opens a pool of threads in each of which PyTorch uses one. On an error or Ctrl-C, pending tasks are cancelled."""
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
