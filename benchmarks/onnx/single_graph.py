"""Runs one graph of an exported pipeline with the runtime and says how long it took; others measure it from outside.

    python -m edgepress.benchmarks.onnx.single_graph ARTIFACT GRAPH HEIGHT WIDTH TOLD

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

from ...models.base.host import Host, load_host
from ...models.registry import get_family
from ...runtime.noise import torch_randn
from ...runtime.onnx import exported as manifest
from ...runtime.onnx.sessions import SessionPool

PROMPT_TOKENS = 64  # of the prompt
TIMESTEP = 750.0
REPEATS = 3
Inputs = dict[str, NDArray[Any]]


class ReachedGraphError(Exception):
    """Carries the inputs of the graph that was waited for."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def capture_inputs(graph: str, host: Host, sessions: SessionPool, size: tuple[int, int]) -> Inputs:
    """What the host gives a graph in painting, those before it being run; the latents are noise."""

    def run(name: str, inputs: Inputs) -> NDArray[np.float32]:
        if name == graph:
            raise ReachedGraphError(inputs)
        return sessions(name, inputs)

    try:
        encoded_prompt = host.encode_prompt(run, np.arange(PROMPT_TOKENS))
        latents = torch_randn(host.latent_shape(*size), 0)
        host.predict_velocity(run, latents, TIMESTEP, encoded_prompt)
        host.decode_latents(run, latents)
    except ReachedGraphError as reached:
        return reached.inputs
    raise ValueError(f"nothing runs the graph {graph}")


def main(artifact: str, graph: str, height: str, width: str, result: str) -> None:
    exported = manifest.load_exported_onnx(Path(artifact))
    sessions = SessionPool(exported.graph_files, keep_loaded=False)
    host = load_host(get_family(exported.pipeline_class), exported.host_configs)
    inputs = capture_inputs(graph, host, sessions, (int(height), int(width)))
    seconds = []
    for _ in range(1 + REPEATS):
        started = perf_counter()
        output = sessions(graph, inputs)
        seconds.append(perf_counter() - started)
    if not np.isfinite(output).all():
        raise SystemExit(f"{graph} gives values that are not finite")
    content = {"first": seconds[0], "later": seconds[1:], "tokens": PROMPT_TOKENS}
    Path(f"{result}.json").write_text(json.dumps(content), "utf-8")
    np.save(f"{result}.npy", output)


if __name__ == "__main__":
    main(*sys.argv[1:])
