"""Builds and simulates one part for an NPU as exporting does, published or not; others run it and read what it tells.

python -m edgepress.benchmarks.rknn.block_worker RECIPE MODEL ARTIFACT GRAPH TOLD.json

TOLD.json says what pipeline.json would say of the part, and of the small text encoder that is built before it;
`refused` is why it would not be published. TOLD.npz holds its first inputs and what its float graph answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ...common.progress import no_progress
from ...export.rknn.building.acceptance import get_rejection_reason
from ...export.rknn.building.precision import list_build_options
from ...export.rknn.building.simulation import BuildRequest, build_and_simulate
from ...export.rknn.calibration import PartCalls, collect_calibration_samples, record_calls
from ...export.rknn.part_graph import write_part_onnx
from ...export.rknn.prepare import RknnJob, prepare_job
from ...export.verification.golden import TorchReference
from ...export.verification.image_parity import generate_reference
from ...models.base.npu import GraphPart
from ...recipes import loader
from ...runtime.onnx.sessions import SessionPool
from ...runtime.rknn.simulator import save_calibration_samples
from ...runtime.rknn.toolkit import Toolkit

FIRST_GRAPH = "text_encoder"


def main(recipe: str, model: str, artifact: str, graph: str, result: str) -> None:
    settings = loader.load_recipe(recipe).rknn
    assert settings is not None
    job = prepare_job(Path(model), Path(artifact), settings, ())
    (part,) = job.graphs[graph]
    with tempfile.TemporaryDirectory(dir=Path(result).parent) as folder, Toolkit() as toolkit:
        stage = Path(folder)
        files = {
            each.name: write_part_onnx(
                each, job.model, job.npu_weights[each.graph.component], job.host.axis_sizes, stage
            )
            for each in job.parts
        }
        floats = SessionPool(files, keep_loaded=False)
        reference = TorchReference(job.model.folder, job.model.family, {})
        calls = record_calls(
            job, floats, generate_reference(reference, job.host, reference.tokenize(job.host), job.image_size), files
        )
        _collect_samples(job, part, floats, calls, stage)
        records = {
            name: [_build_part(job, job.graphs[name][0], toolkit, files, calls, stage)] for name in (FIRST_GRAPH, graph)
        }
    first_call = calls[part.name][0]
    arrays: dict[str, Any] = {f"in.{port}": array for port, array in first_call.inputs.items()}
    np.savez(Path(result).with_suffix(".npz"), **arrays, out=first_call.output)
    Path(result).write_text(json.dumps(records), "utf-8")


def _collect_samples(job: RknnJob, part: GraphPart, floats: SessionPool, calls: PartCalls, stage: Path) -> None:
    """Calibration samples of a part that is rounded."""
    scheme = job.get_scheme(part)
    if scheme and scheme.quantizes_activations:
        collect_calibration_samples(job, floats, [part], job.model.folder / "tokenizer", stage, no_progress)
    elif scheme:
        save_calibration_samples([calls[part.name][0].inputs], stage / part.name)


def _build_part(
    job: RknnJob, part: GraphPart, toolkit: Toolkit, files: dict[str, Path], calls: PartCalls, stage: Path
) -> dict[str, Any]:
    option = list_build_options(job.get_precision(part), job.settings.target, job.get_scheme(part))[0]
    rknn = stage / f"{part.name}.rknn"
    measurement = build_and_simulate(
        toolkit,
        part.name,
        BuildRequest(files[part.name], stage / part.name, rknn, calls[part.name]),
        option.build_config,
    )
    extra = {
        "precision": option.precision,
        "bytes": rknn.stat().st_size,
        "refused": get_rejection_reason(option.precision, measurement),
    }
    return measurement.to_json() | extra


if __name__ == "__main__":
    main(*sys.argv[1:])
