"""Measures the graphs of a pipeline with the shapes that its host gives them, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...models.base.graph import Graph
from ...models.base.host import load_host
from ...models.base.npu import GraphPart
from ...models.base.prompt_tokens import make_trial_tokens
from ..graph.source_model import SourcePipeline
from .footprint import Footprint, measure_footprint

ENCODING, DENOISING, DECODING = "encoding", "denoising", "decoding"
TIMESTEP = 500.0  # any


@dataclass(frozen=True)
class MeteredGraph:
    """A graph with its footprint.

    Attributes:
        graph: The graph.
        phase: When it runs: `encoding`, `denoising` or `decoding`.
        footprint: Its footprint.
    """

    graph: Graph
    phase: str
    footprint: Footprint


def meter_graphs(model: SourcePipeline, size: tuple[int, int], prompt_tokens: int) -> list[MeteredGraph]:
    """Measures all graphs that generating an image runs, and the encoder of the family's graphs if it is among them.

    Args:
        model: The pipeline.
        size: Height and width of the image in pixels.
        prompt_tokens: Tokens of the prompt.

    Raises:
        UserError: The family has no host, so that nobody knows the shapes, or it does not support the size.
    """
    host = load_host(model.family, model.configs)
    meter = _Meter(model)
    prompt = host.encode_prompt(meter, make_trial_tokens(host.prompt_formats, prompt_tokens))
    latents = np.zeros(host.latent_shape(*size), np.float32)
    if model.family.graph(host.encoder_graph):
        host.encode_image(meter, np.zeros((*size, 3), np.uint8), latents)
    meter.phase = DENOISING
    host.predict_velocity(meter, latents, TIMESTEP, prompt)
    meter.phase = DECODING
    host.decode_latents(meter, latents)
    return list(meter.graphs.values())


class _Meter:
    """Stands in for the runtime: measures each graph and returns zeros in the shape of its output.

    Attributes:
        phase: The phase that runs.
        graphs: What was measured, by name.
    """

    def __init__(self, model: SourcePipeline) -> None:
        self._model = model
        self.phase = ENCODING
        self.graphs: dict[str, MeteredGraph] = {}

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        graph = self._model.family.graph(name)
        if graph is None:
            raise UserError(f"{self._model.family.pipeline_class} has no graph {name!r}. See docs/add-a-model.md.")
        sizes = {
            axis: size
            for port in graph.inputs
            for axis, size in zip(port.axes, inputs[port.name].shape, strict=True)
            if axis
        }
        folder = self._model.folder / graph.component
        footprint = measure_footprint(GraphPart(name, graph), folder, sizes, has_fused_attention=True)
        self.graphs[name] = MeteredGraph(graph, self.phase, footprint)
        return [np.zeros(shape, np.float32) for shape in footprint.output_shapes]
