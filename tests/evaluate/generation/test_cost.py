from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgepress.evaluate.generation.cost import COST_NAME, BatchCost, CostMeter, load_cost, save_cost
from edgepress.evaluate.results.aggregate import summarize_costs

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_what_was_added_meanwhile() -> None:
    before = np.ones(64 * MIB, np.uint8)
    meter = CostMeter()
    meter.start()
    added = np.ones(96 * MIB, np.uint8)
    del added
    time.sleep(0.05)
    cost = meter.finish(4)
    assert before.size == 64 * MIB
    assert cost.peak_memory is not None
    assert 90 * MIB < cost.peak_memory < 140 * MIB
    assert 0.05 < cost.seconds < 5
    assert cost.num_images == 4


def test_the_memory_of_another_process_is_read() -> None:
    values = iter((5, 9, None))
    meter = CostMeter(lambda: next(values))
    assert [meter.finish(1).peak_memory for _ in range(3)] == [5, 9, 9]
    assert CostMeter(lambda: None).finish(1).peak_memory is None


def test_costs_are_stored_beside_the_images(tmp_path: Path) -> None:
    cost = BatchCost(1.5, 3, 7 * MIB)
    save_cost(cost, tmp_path)
    assert load_cost(tmp_path) == cost
    for damage in ("", "[]", '{"seconds": 1}', '{"seconds": "x", "num_images": 1, "peak_memory": null}'):
        (tmp_path / COST_NAME).write_text(damage)
        assert load_cost(tmp_path) is None
    assert load_cost(tmp_path / "nowhere") is None


def test_the_first_batch_warms_up() -> None:
    batches = [BatchCost(90, 2, 5), BatchCost(4, 2, 8), BatchCost(3, 1, None)]
    cost = summarize_costs(batches)
    assert cost is not None
    assert (cost.seconds.mean, cost.seconds.count, cost.batch_size, cost.peak_memory) == (7 / 3, 3, 2, 8)
    assert cost.seconds.low == 2
    assert cost.seconds.high == 3
    only = summarize_costs(batches[:1])
    assert only is not None
    assert (only.seconds.mean, only.seconds.low) == (45, None)
    assert summarize_costs([]) is None
