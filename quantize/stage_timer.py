"""How long each stage of a quantization takes."""

from __future__ import annotations

import time

from ..common.progress import Progress


class StageTimer:
    """Passes progress on and measures how long each stage takes, from its first report to its last.

    Attributes:
        stage: The stage that reported last; empty before the first.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self.stage = progress, ""
        self._spans: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now, self.stage = time.monotonic(), stage
        self._spans[stage] = (self._spans.get(stage, (now, now))[0], now)
        self._progress(stage, done, total)

    @property
    def seconds(self) -> dict[str, float]:
        return {stage: round(last - first, 2) for stage, (first, last) in self._spans.items()}
