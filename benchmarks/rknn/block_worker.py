"""Builds and simulates one part for an NPU as the exporter does, whether or not it would be published.

python -m edgepress.benchmarks.rknn.block_worker RECIPE MODEL ARTIFACT GRAPH RESULT.json

RESULT.json gets what pipeline.json would record of the part, and of the small text encoder that is built before it;
`rejected` is why the part would not be published. RESULT.npz gets its first inputs, and the output of its float graph.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from ...common.progress import no_progress
from ...export.graph.source_model import open_source
from ...export.rknn.building.acceptance import get_rejection_reason
from ...export.rknn.building.precision import list_build_options
from ...export.rknn.building.simulation import BuildRequest, build_and_simulate
from ...export.rknn.calibration import write_calibration_samples
from ...export.rknn.part_calls import PartCalls, generate_torch_image, record_calls
from ...export.rknn.part_graph import write_part_onnx
from ...export.rknn.pipeline_config import describe_measurement
from ...export.rknn.prepare import RknnJob, prepare_job
from ...models.base.npu import GraphPart
from ...recipes.loader import load_recipe
from ...runtime.onnx.sessions import SessionPool
from ...runtime.rknn.toolkit import Toolkit

FIRST_GRAPH = "text_encoder"


def main(recipe: str, model: str, artifact: str, graph: str, result: str) -> None:
    settings = load_recipe(recipe).rknn
    assert settings is not None
    job = prepare_job(open_source(Path(model)), Path(artifact), settings)
    (part,) = job.graphs[graph]
    with tempfile.TemporaryDirectory(dir=Path(result).parent) as folder, Toolkit() as toolkit:
        stage = Path(folder)
        onnx_files = {
            job_part.name: write_part_onnx(
                job_part, job.model, job.weights[job_part.graph.component].npu, job.host.axis_sizes, stage
            )
            for job_part in job.parts
        }
        sessions = SessionPool(onnx_files, keep_loaded=False)
        calls = record_calls(job, sessions, generate_torch_image(job), onnx_files)
        tokenizer = job.model.folder / "tokenizer"
        write_calibration_samples(job, [part], sessions, calls, tokenizer, stage, no_progress)
        records = {
            name: [_build_part(job, job.graphs[name][0], toolkit, onnx_files, calls, stage)]
            for name in (FIRST_GRAPH, graph)
        }
    first_call = calls[part.name][0]
    arrays: dict[str, Any] = {f"in.{port}": array for port, array in first_call.inputs.items()}
    np.savez(Path(result).with_suffix(".npz"), **arrays, out=first_call.output)
    Path(result).write_text(json.dumps(records), "utf-8")


def _build_part(
    job: RknnJob, part: GraphPart, toolkit: Toolkit, onnx_files: dict[str, Path], calls: PartCalls, stage: Path
) -> dict[str, Any]:
    option = list_build_options(job.get_precision(part), job.settings.target, job.get_scheme(part))[0]
    request = BuildRequest(
        onnx_file=onnx_files[part.name],
        samples_folder=stage / part.name,
        rknn_file=stage / f"{part.name}.rknn",
        golden_samples=calls[part.name],
    )
    measurement = build_and_simulate(toolkit, part.name, request, option.build_config)
    record: dict[str, Any] = to_jsonable_python(describe_measurement(measurement))
    return record | {
        "precision": option.precision,
        "bytes": request.rknn_file.stat().st_size,
        "rejected": get_rejection_reason(option.precision, measurement),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
