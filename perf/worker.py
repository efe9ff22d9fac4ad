"""The measured process: generates images and reports how long each stage took.

It imports only what generating images needs, so that its memory is that of generating images. It reads one JSON object
a line from standard input: first the job, then requests. It answers each with one line to the file descriptor that is
its only argument.
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
from ..runtime.generation_request import GenerationRequest
from ..runtime.onnx.sessions import CPU_PROVIDERS
from ..runtime.pipeline import DECODING, DENOISING, ENCODING, ImagePipeline

PR_SET_PDEATHSIG = 1  # of prctl: signal that the process gets when its parent ends


class LapTimer:
    """Progress of a pipeline that records the time of each call, and how long graphs had been loading by then.

    Args:
        pipeline: The pipeline that reports the progress.
    """

    def __init__(self, pipeline: ImagePipeline) -> None:
        self._pipeline = pipeline
        self._marks: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, stage: str, _done: int, _total: int, /) -> None:
        self._marks.setdefault(stage, []).append((perf_counter(), self._pipeline.load_seconds))

    def lap_seconds(self, stage: str) -> list[float]:
        """Returns the times between the calls of a stage, without loading graphs."""
        return [
            time - previous_time - (loading - previous_loading)
            for (previous_time, previous_loading), (time, loading) in pairwise(self._marks[stage])
        ]


def time_generation(pipeline: ImagePipeline, request: GenerationRequest) -> dict[str, Any]:
    """Generates an image and returns the time of each stage, notices of a truncated prompt, and the engine."""
    timer, notices = LapTimer(pipeline), list[str]()
    start, load_seconds = perf_counter(), pipeline.load_seconds
    pipeline.generate(request, timer, notices.append)
    return {
        "seconds": perf_counter() - start,
        "loading": pipeline.load_seconds - load_seconds,
        "text_encoder": sum(timer.lap_seconds(ENCODING)),
        "steps": timer.lap_seconds(DENOISING),
        "decoder": sum(timer.lap_seconds(DECODING)),
        "truncation_notices": notices,
        "engine": pipeline.engine,
    }


def serve(respond: Callable[[dict[str, Any]], None]) -> None:
    """Opens the artifact of the job and generates all requested images."""
    job = json.loads(sys.stdin.readline())
    providers = job["providers"] or CPU_PROVIDERS
    pipeline = ImagePipeline(Path(job["artifact"]), job["keep_loaded"], providers, threads=job["threads"])
    size, tile_size = job["size"] and tuple(job["size"]), job["tile_size"]
    respond(
        {
            "folder": str(pipeline.folder),
            "size": pipeline.resolve_size(size),
            "simulated": pipeline.is_simulated,
            "keep_loaded": pipeline.keep_loaded,
            "threads": pipeline.threads,
        }
    )
    for line in sys.stdin:
        message = json.loads(line)
        request = GenerationRequest(message["prompt"], message["seed"], job["steps"], size, tile_size)
        respond(time_generation(pipeline, request))


def main() -> None:
    """Serves requests. A user error is an answer as well; any other error ends the process with a traceback."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(int(sys.argv[1]), "w") as stream:

        def respond(content: dict[str, Any]) -> None:
            stream.write(json.dumps(content) + "\n")
            stream.flush()

        try:
            serve(respond)
        except UserError as error:
            respond({"error": str(error)})


if __name__ == "__main__":
    main()
