from __future__ import annotations

import threading

from edgepress.common.threads import map_threads


def test_results_are_in_the_order_of_the_items() -> None:
    threads: set[int] = set()

    def double(number: int) -> int:
        threads.add(threading.get_ident())
        return 2 * number

    assert list(map_threads(double, range(50))) == list(range(0, 100, 2))
    assert threading.get_ident() not in threads
