"""Made-up results of benchmarks, and a file as schema version 1 wrote it."""

from __future__ import annotations

from typing import Any

from edgepress.perf.machine import MachineInfo
from edgepress.perf.power import CpufreqPolicy, PowerState
from edgepress.perf.schema import (
    BenchResults,
    BenchSettings,
    ImageTiming,
    MemoryPeaks,
    RunConditions,
    summarize_timings,
)

UNKNOWN_MACHINE = MachineInfo(
    model=None, cpu=None, architecture="aarch64", cores=4, virtual=None, memory=None, swap=None, system=None,
    release=None, kernel="6.6", python="3.11.2",
)  # fmt: skip
PI = UNKNOWN_MACHINE.model_copy(update={"model": "Raspberry Pi 5 | Rev 1.0", "memory": 8_000_000_000})
UNKNOWN_CONDITIONS = RunConditions(
    power=PowerState(mode=None, policies=[]), temperatures={}, max_temperatures={}, throttling={}, available_memory=None
)
PI_CONDITIONS = RunConditions(
    power=PowerState(
        mode=None,
        policies=[CpufreqPolicy(cores="0 1 2 3", governor="ondemand", min_hz=1_500_000_000, max_hz=2_400_000_000)],
    ),
    temperatures={"cpu (0)": 48.3},
    max_temperatures={"cpu (0)": 71.25},
    throttling={"vcgencmd get_throttled": ("never since boot", "throttled since boot")},
    available_memory=7_000_000_000,
)


def make_timing(number: int, leak: int = 0) -> ImageTiming:
    """The first image takes 2 s plus 1 s of loading; later ones take (100 + number) ms, with steps of 10 ms."""
    return ImageTiming(
        prompt=f"p{number}",
        seed=number,
        seconds=0.1 + number / 1000 if number else 3.0,
        loading=0.0 if number else 1.0,
        text_encoder=0.02,
        steps=[0.01, 0.01],
        decoder=0.03,
        rss=200_000_000 + leak * number,
        peak_rss=300_000_000,
    )


def make_results(num_images: int, leak: int = 0, keep_loaded: bool = True, **changes: Any) -> BenchResults:
    images = [make_timing(number, leak) for number in range(num_images + 1)]
    settings = BenchSettings(
        num_images=100,
        size=(128, 256),
        steps=2,
        tile_size=None,
        seed=0,
        keep_loaded=keep_loaded,
        prompt_set="smoke",
        prompts_sha256="0" * 64,
    )
    fields: dict[str, Any] = {
        "edgepress": "0.1.0",
        "started_at": "2026-01-02T03:04:05+00:00",
        "artifact": "out",
        "engine": "ONNX Runtime 1.31.1, CPU",
        "simulated": False,
        "incomplete_reason": None,
        "machine": PI,
        "conditions": PI_CONDITIONS,
        "settings": settings,
        "summary": summarize_timings(0.5, images, keep_loaded),
        "memory": MemoryPeaks(peak=300_000_000, anon=250_000_000, file_backed=50_000_000),
        "disk_bytes_read": 40_000_000,
        "file_sizes": {"a.onnx": 1_000_000, "b.safetensors": 39_000_000},
        "truncation_notices": [],
        "images": images,
    }
    return BenchResults(**fields | changes)


FEW = {"p50": None, "p90": None, "p99": None}  # percentiles of one value
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
        "times": {
            name: {"n": 1, "mean": seconds, "percentiles": FEW, "longest": seconds}
            for name, seconds in (("image", 1.5), ("text encoder", 0.2), ("step", 0.3), ("decoder", 0.4))
        },
        "memory_drift": None, "time_drift": None,
    },
    "memory": {"peak": 3, "own": 2, "mapped": 1},
    "read": 40,
    "disk": {"a.onnx": 1},
    "cut": ["a notice"],
    "pictures": [
        {
            "prompt": "a", "seed": 0, "seconds": 3.0, "loading": 1.0, "text_encoder": 0.1, "steps": [0.1],
            "decoder": 0.1, "rss": 2, "peak": 3,
        },
        {
            "prompt": "b", "seed": 1, "seconds": 1.5, "loading": 0.0, "text_encoder": 0.2, "steps": [0.3],
            "decoder": 0.4, "rss": 2, "peak": 3,
        },
    ],
}  # fmt: skip
