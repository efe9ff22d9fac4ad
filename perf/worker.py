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

from ..common.errors import UserError
from ..runtime.onnx.sessions import CPU_PROVIDERS
from ..runtime.pipeline import GenerationRequest, ImagePipeline

PR_SET_PDEATHSIG = 1  # prctl's PR_SET_PDEATHSIG


class LapTimer:
    """A painter's progress, with the time of each call and how long graphs had been loading by then."""

    def __init__(self, painter: ImagePipeline) -> None:
        self._painter = painter
        self._marks: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, stage: str, _done: int, _total: int, /) -> None:
        self._marks.setdefault(stage, []).append((perf_counter(), self._painter.load_seconds))

    def lap_seconds(self, stage: str) -> list[float]:
        """Between the calls of a stage, without the loading of graphs."""
        return [
            later - before - (loaded_later - loaded_before)
            for (before, loaded_before), (later, loaded_later) in pairwise(self._marks[stage])
        ]


def time_generation(pipeline: ImagePipeline, request: GenerationRequest) -> dict[str, Any]:
    """How long a picture took: in all, and each of its parts; and what was cut of its prompt."""
    laps, cut = LapTimer(pipeline), list[str]()
    began, loaded = perf_counter(), pipeline.load_seconds
    pipeline.generate(request, laps, cut.append)
    return {
        "seconds": perf_counter() - began,
        "loading": pipeline.load_seconds - loaded,
        "text_encoder": sum(laps.lap_seconds("reading")),
        "steps": laps.lap_seconds("painting"),
        "decoder": sum(laps.lap_seconds("decoding")),
        "cut": cut,
        "engine": pipeline.engine,
    }


def serve(respond: Callable[[dict[str, Any]], None]) -> None:
    """Opens the artifact of the job and paints all wishes."""
    job = json.loads(sys.stdin.readline())
    painter = ImagePipeline(Path(job["artifact"]), job["keep"], job["providers"] or CPU_PROVIDERS)
    size, tile = job["size"] and tuple(job["size"]), job["tile"]
    respond({"folder": str(painter.folder), "size": painter.resolve_size(size), "simulated": painter.is_simulated})
    for line in sys.stdin:
        wish = json.loads(line)
        respond(time_generation(painter, GenerationRequest(wish["prompt"], wish["seed"], job["steps"], size, tile)))


def main() -> None:
    """A sentence for the user is an answer too; anything else ends the process, with a traceback in its log."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
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
