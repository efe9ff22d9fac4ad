"""bench.json as schema version 1 wrote it."""

from __future__ import annotations

from helpers.bench_results import VERSION_1

from edgepress.perf.schema import BenchResults


def test_old_keys_are_read() -> None:
    results = BenchResults.model_validate(VERSION_1)
    assert results.incomplete_reason == "interrupted"
    assert results.conditions.power.policies[0].max_hz == 2
    assert results.settings.num_images == 100
    assert results.summary.latencies["image"].max == 3.0
    assert results.memory.file_backed == 1
    assert results.images[0].peak_rss == 3
    assert BenchResults.model_validate_json(results.model_dump_json()) == results
