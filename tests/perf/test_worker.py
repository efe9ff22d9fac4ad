"""What the worker tells of a picture, by a clock and a painter whose every second is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgepress.perf import worker
from edgepress.runtime.pipeline import GenerationRequest


class Clocked:
    """Takes 1 s of tokenizer, 2 to read (and 10 to load a graph), 3 a step (20 to load at the first), 4 to decode."""

    engine = "a stand-in"

    def __init__(self) -> None:
        self.now = self.loading = 0.0

    def paint(
        self, wish: GenerationRequest, progress: Callable[[str, int, int], None], tell: Callable[[str], None]
    ) -> None:
        tell("a sentence")
        self._work(1)
        progress("reading", 0, 1)
        self._work(2, loading=10)
        progress("reading", 1, 1)
        progress("painting", 0, wish.steps)
        for step in range(wish.steps):
            self._work(3, loading=20 * (step == 0))
            progress("painting", step + 1, wish.steps)
        progress("decoding", 0, 1)
        self._work(4)
        progress("decoding", 1, 1)

    def _work(self, seconds: float, loading: float = 0) -> None:
        self.now += seconds + loading
        self.loading += loading


def test_every_second_is_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    painter: Any = Clocked()
    monkeypatch.setattr(worker, "perf_counter", lambda: painter.now)
    painter.loading = 100.0  # of earlier pictures
    assert worker.time_generation(painter, GenerationRequest("a wall", steps=2)) == {
        "seconds": 1 + 2 + 2 * 3 + 4 + 10 + 20,
        "loading": 30,
        "text_encoder": 2,
        "steps": [3, 3],
        "decoder": 4,
        "cut": ["a sentence"],
        "engine": "a stand-in",
    }
