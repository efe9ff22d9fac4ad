"""Runs one graph of an exported pipeline with the runtime and says how long it took; others measure it from outside.

    python -m edgepress.benchmarks.steps ARTIFACT GRAPH HEIGHT WIDTH TOLD

TOLD.json says seconds, and TOLD.npy is the output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import family_of
from ..models.host import Host, host_of
from ..runtime import manifest
from ..runtime.noise import noise
from ..runtime.sessions import Sessions

TOKENS = 64  # of the prompt
TIMESTEP = 750.0
LATER = 3
Inputs = dict[str, NDArray[Any]]


class ReachedError(Exception):
    """Carries the inputs of the graph that was waited for."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def inputs_of(graph: str, host: Host, sessions: Sessions, size: tuple[int, int]) -> Inputs:
    """What the host gives a graph in painting, those before it being run; the latents are noise."""

    def run(name: str, inputs: Inputs) -> NDArray[np.float32]:
        if name == graph:
            raise ReachedError(inputs)
        return sessions(name, inputs)

    try:
        caption = host.encode(run, np.arange(TOKENS))
        latents = noise(host.latent_shape(*size), 0)
        host.velocity(run, latents, TIMESTEP, caption)
        host.decode(run, latents)
    except ReachedError as reached:
        return reached.inputs
    raise ValueError(f"nothing runs the graph {graph}")


def main(artifact: str, graph: str, height: str, width: str, told: str) -> None:
    exported = manifest.read(Path(artifact))
    sessions = Sessions(exported.graphs, keep=False)
    host = host_of(family_of(exported.family), exported.host)
    inputs = inputs_of(graph, host, sessions, (int(height), int(width)))
    seconds = []
    for _ in range(1 + LATER):
        started = perf_counter()
        output = sessions(graph, inputs)
        seconds.append(perf_counter() - started)
    if not np.isfinite(output).all():
        raise SystemExit(f"{graph} gives values that are not finite")
    content = {"first": seconds[0], "later": seconds[1:], "tokens": TOKENS}
    Path(f"{told}.json").write_text(json.dumps(content), "utf-8")
    np.save(f"{told}.npy", output)


if __name__ == "__main__":
    main(*sys.argv[1:])
