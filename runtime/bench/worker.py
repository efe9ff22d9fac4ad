"""The measured process: paints what it is asked for and says how long each part took.

It imports what painting needs and no more, so that its memory is that of painting. Its input is a JSON object a line:
the job first, then wishes. It answers each with one to the descriptor that is its one argument.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from ...errors import UserError
from ..paint import Painter, Wish
from ..sessions import CPU

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class Laps:
    """A painter's progress, with the time of each call and how long graphs had been loading by then."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self._marks: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, stage: str, _done: int, _total: int, /) -> None:
        self._marks.setdefault(stage, []).append((perf_counter(), self._painter.loading))

    def seconds(self, stage: str) -> list[float]:
        """Between the calls of a stage, without the loading of graphs."""
        return [
            later - before - (loaded_later - loaded_before)
            for (before, loaded_before), (later, loaded_later) in pairwise(self._marks[stage])
        ]


def painted(painter: Painter, wish: Wish) -> dict[str, Any]:
    """How long a picture took: in all, and each of its parts; and what was cut of its prompt."""
    laps, cut = Laps(painter), list[str]()
    began, loaded = perf_counter(), painter.loading
    painter.paint(wish, laps, cut.append)
    return {
        "seconds": perf_counter() - began,
        "loading": painter.loading - loaded,
        "text_encoder": sum(laps.seconds("reading")),
        "steps": laps.seconds("painting"),
        "decoder": sum(laps.seconds("decoding")),
        "cut": cut,
        "engine": painter.engine,
    }


def serve(answer: Callable[[dict[str, Any]], None]) -> None:
    """Opens the artifact of the job and paints all wishes."""
    job = json.loads(sys.stdin.readline())
    painter = Painter(Path(job["artifact"]), job["keep"], job["providers"] or CPU)
    size, tile = job["size"] and tuple(job["size"]), job["tile"]
    answer({"folder": str(painter.folder), "size": painter.size(size), "simulated": painter.simulated})
    for line in sys.stdin:
        wish = json.loads(line)
        answer(painted(painter, Wish(wish["prompt"], wish["seed"], job["steps"], size, tile)))


def main() -> None:
    """A sentence for the user is an answer too; anything else ends the process, with a traceback in its log."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    with os.fdopen(int(sys.argv[1]), "w") as stream:

        def answer(content: dict[str, Any]) -> None:
            stream.write(json.dumps(content) + "\n")
            stream.flush()

        try:
            serve(answer)
        except UserError as error:
            answer({"error": str(error)})


if __name__ == "__main__":
    main()
