"""The timings of the worker, with a clock and a pipeline whose every second is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgepress.perf import worker
from edgepress.runtime.generation_request import GenerationRequest


class FakePipeline:
    """Takes 1 s to tokenize, 2 to encode (plus 10 to load), 3 a step (plus 20 at the first), 4 to decode."""

    engine = "a fake engine"

    def __init__(self) -> None:
        self.clock = self.load_seconds = 0.0

    def generate(
        self, request: GenerationRequest, progress: Callable[[str, int, int], None], warn: Callable[[str], None]
    ) -> None:
        warn("a notice")
        self._work(1)
        progress("encoding", 0, 1)
        self._work(2, loading=10)
        progress("encoding", 1, 1)
        progress("denoising", 0, request.steps)
        for step in range(request.steps):
            self._work(3, loading=20 * (step == 0))
            progress("denoising", step + 1, request.steps)
        progress("decoding", 0, 1)
        self._work(4)
        progress("decoding", 1, 1)

    def _work(self, seconds: float, loading: float = 0) -> None:
        self.clock += seconds + loading
        self.load_seconds += loading


def test_timings_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline: Any = FakePipeline()
    monkeypatch.setattr(worker, "perf_counter", lambda: pipeline.clock)
    pipeline.load_seconds = 100.0  # of earlier images
    assert worker.time_generation(pipeline, GenerationRequest("a wall", steps=2)) == {
        "seconds": 1 + 2 + 2 * 3 + 4 + 10 + 20,
        "loading": 30,
        "text_encoder": 2,
        "steps": [3, 3],
        "decoder": 4,
        "truncation_notices": ["a notice"],
        "engine": "a fake engine",
    }
