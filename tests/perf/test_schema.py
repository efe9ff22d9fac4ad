"""bench.json as schema version 1 wrote it."""

from __future__ import annotations

from edgepress.perf.schema import BenchResults

DRIFT = {"slope": 1.0, "low": -1.0, "high": 2.0, "n": 10}
VERSION_1 = {
    "schema_version": 1,
    "edgepress": "0.1.0",
    "begun": "2026-01-02T03:04:05+00:00",
    "artifact": "out",
    "engine": "ONNX Runtime",
    "simulated": False,
    "partial": "interrupted",
    "machine": {
        "model": None, "cpu": None, "architecture": "aarch64", "cores": 4, "virtual": None, "memory": None,
        "swap": None, "system": None, "release": None, "kernel": "6.6", "python": "3.11.2",
    },
    "conditions": {
        "power": {"mode": None, "clocks": [{"cores": "0", "governor": "ondemand", "least": 1, "most": 2}]},
        "temperatures": {"cpu (0)": 48.0},
        "hottest": {"cpu (0)": 70.0},
        "throttling": {},
        "available": 7,
    },
    "settings": {
        "images": 100, "size": [64, 80], "steps": 2, "tile": None, "seed": 0, "keep": True, "prompts": "smoke",
        "prompts_sha256": "0",
    },
    "summary": {
        "ready": 0.5, "loading": 1.0, "start_up": 1.5, "first": 2.0,
        "times": {"image": {"n": 1, "mean": 1.0, "percentiles": {"p50": None}, "longest": 3.0}},
        "memory_drift": None, "time_drift": DRIFT,
    },
    "memory": {"peak": 3, "own": 2, "mapped": 1},
    "read": 40,
    "disk": {"a.onnx": 1},
    "cut": ["a notice"],
    "pictures": [
        {
            "prompt": "a", "seed": 0, "seconds": 3.0, "loading": 1.0, "text_encoder": 0.1, "steps": [0.1],
            "decoder": 0.1, "rss": 2, "peak": 3,
        }
    ],
}  # fmt: skip


def test_old_keys_are_read() -> None:
    results = BenchResults.model_validate(VERSION_1)
    assert results.incomplete_reason == "interrupted"
    assert results.conditions.power.policies[0].max_hz == 2
    assert results.settings.num_images == 100
    assert results.summary.latencies["image"].max == 3.0
    assert results.memory.file_backed == 1
    assert results.images[0].peak_rss == 3
    assert BenchResults.model_validate_json(results.model_dump_json()) == results
