"""Runs one graph of an exported pipeline with ONNX Runtime and writes its times. Run as a process that is measured.

    python -m edgepress.benchmarks.onnx.single_graph ARTIFACT GRAPH HEIGHT WIDTH RESULT

RESULT.json holds seconds, RESULT.npy the output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.base.host import GraphRunner, Host, load_host
from ...models.base.prompt_tokens import make_trial_tokens
from ...models.registry import get_family
from ...runtime.noise import torch_randn
from ...runtime.onnx.exported import load_exported_onnx
from ...runtime.onnx.sessions import SessionPool

PROMPT_TOKENS = 64
TIMESTEP = 750.0
REPEATS = 3
Inputs = dict[str, NDArray[Any]]


class GraphReachedError(Exception):
    """Carries the inputs of the graph that is measured, and ends the run."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def capture_inputs(graph: str, host: Host, sessions: SessionPool, size: tuple[int, int]) -> Inputs:
    """Returns the inputs that a graph gets when an image is generated from noise; earlier graphs are run for them.

    Args:
        graph: Name of the graph.
        host: The host of the pipeline.
        sessions: Its graphs.
        size: Height and width of the image in pixels.

    Raises:
        ValueError: The host never runs the graph.
    """

    def run_until_reached(name: str, inputs: Inputs) -> Sequence[NDArray[np.float32]]:
        if name == graph:
            raise GraphReachedError(inputs)
        return sessions.run(name, inputs)

    run = GraphRunner(run_until_reached)
    try:
        encoded_prompt = host.encode_prompt(run, make_trial_tokens(host.prompt_formats, PROMPT_TOKENS))
        latents = torch_randn(host.latent_shape(*size), 0)
        host.predict_velocity(run, latents, TIMESTEP, encoded_prompt)
        host.decode_latents(run, latents)
    except GraphReachedError as reached:
        return reached.inputs
    raise ValueError(f"Generating an image does not run the graph {graph!r}.")


def main(artifact: str, graph: str, height: str, width: str, result: str) -> None:
    exported = load_exported_onnx(Path(artifact))
    sessions = SessionPool(exported.graph_files, keep_loaded=False)
    host = load_host(get_family(exported.pipeline_class), exported.host_configs)
    inputs = capture_inputs(graph, host, sessions, (int(height), int(width)))
    seconds = []
    for _ in range(1 + REPEATS):
        started = perf_counter()
        output = sessions(graph, inputs)
        seconds.append(perf_counter() - started)
    if not np.isfinite(output).all():
        raise SystemExit(f"The output of the graph {graph!r} contains NaN or infinity.")
    times = {"first": seconds[0], "later": seconds[1:], "tokens": PROMPT_TOKENS}
    Path(f"{result}.json").write_text(json.dumps(times), "utf-8")
    np.save(f"{result}.npy", output)


if __name__ == "__main__":
    main(*sys.argv[1:])
