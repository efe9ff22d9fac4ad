"""Records the inputs and outputs of parts while they generate an image: the golden calls of an export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...common.errors import UserError
from ...runtime.onnx.sessions import SessionPool
from ...runtime.rknn.part_chain import Arrays, RunPart
from ...runtime.rknn.vae_tiling import chain_graphs
from ..verification.golden import TorchReference
from ..verification.image_parity import ReferenceImage, generate_reference, generate_with_graphs
from .building.simulation import GoldenSample
from .prepare import RknnJob

NUM_GOLDEN_CALLS = 3  # of each part that are kept: the first, one in the middle, the last
THIN_ABOVE = 32  # recorded calls of a part, from which every second one is dropped; tiles are many, and large
PartCalls = dict[str, list[GoldenSample]]  # by the part's name
T = TypeVar("T")


def generate_torch_image(job: RknnJob) -> ReferenceImage:
    """Generates the image of the first evaluation prompt with the source pipeline, in torch."""
    reference = TorchReference(job.model.folder, job.model.family, {})
    return generate_reference(reference, job.host, reference.tokenize(job.host), job.image_size)


def record_calls(
    job: RknnJob, run_part: RunPart, reference_image: ReferenceImage | None, onnx_files: Mapping[str, Path]
) -> PartCalls:
    """Records a few calls of each part while they generate an image.

    If graphs are missing, the prompt is encoded as far as they go, and the other graphs get random inputs. The tiles of
    the decoder get what decoding random latents gives them.

    Args:
        job: The export.
        run_part: Runs the parts in floats.
        reference_image: The image to generate; None: graphs are missing.
        onnx_files: ONNX files of the parts, by name.
    """
    calls: PartCalls = {part.name: [] for part in job.parts}

    def record(name: str, inputs: Arrays) -> NDArray[np.float32]:
        output = run_part(name, inputs)
        calls[name].append(GoldenSample(inputs, output))
        if len(calls[name]) == THIN_ABOVE:
            calls[name][1:-1] = calls[name][1:-1:2]
        return output

    run_graph = chain_graphs(job.host, job.part_refs, record)
    if reference_image is not None:
        generate_with_graphs(replace(reference_image, host=job.host), run_graph)
    else:
        with suppress(UserError):  # of the first graph that is missing
            reference = TorchReference(job.model.folder, job.model.family, {})
            job.host.encode_prompt(run_graph, reference.tokenize(job.host))
        for name, (first, *_) in job.graphs.items():
            if not calls[first.name]:
                tiling = job.host.decoder_tiling
                is_first_tile_graph = tiling is not None and name == tiling.first_graph
                graph = job.host.decoder_graph if is_first_tile_graph else name
                run_graph(graph, make_random_inputs(onnx_files[first.name]))
    return {name: pick_evenly(samples) for name, samples in calls.items()}


def rerun_calls(calls: Iterable[GoldenSample], name: str, onnx_file: Path) -> list[GoldenSample]:
    """Returns the same calls with the outputs of another ONNX file of the part."""
    sessions = SessionPool({name: onnx_file})
    return [GoldenSample(call.inputs, sessions(name, call.inputs)) for call in calls]


def save_first_calls(calls: PartCalls, folder: Path) -> None:
    """Writes the first call of each part to a new folder, as NAME.npz.

    Inputs are `in.PORT`, in the order of the part's inputs; the output is `out`.
    """
    folder.mkdir()
    for name, (first, *_) in calls.items():
        arrays: dict[str, Any] = {f"in.{port}": array for port, array in first.inputs.items()}
        np.savez(folder / f"{name}.npz", **arrays, out=first.output)


def make_random_inputs(onnx_file: Path) -> Arrays:
    """Returns normally distributed inputs for an ONNX file with fixed shapes, float32."""
    generator = np.random.default_rng(0)
    inputs: Arrays = {}
    for port in ir.load(onnx_file).graph.inputs:
        assert port.shape is not None
        inputs[str(port.name)] = generator.standard_normal(port.shape.numpy(), np.float32)
    return inputs


def pick_evenly(calls: Sequence[T]) -> list[T]:
    """Returns the first call, the last, and one in the middle."""
    places = np.linspace(0, len(calls) - 1, min(NUM_GOLDEN_CALLS, len(calls))).round().astype(int)
    return [calls[place] for place in places]
