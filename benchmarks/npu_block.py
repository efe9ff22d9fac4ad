"""Builds and simulates one part for an NPU as exporting does, published or not; others run it and read what it tells.

python -m edgepress.benchmarks.npu_block RECIPE MODEL ARTIFACT GRAPH TOLD.json

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

from .. import recipe as recipes
from ..export.onnx.golden import Reference
from ..export.onnx.picture import paint
from ..export.rknn.calls import Calls, calibrate, recorded
from ..export.rknn.graph import write
from ..export.rknn.job import Job, prepare
from ..export.rknn.measure import Files, measure
from ..export.rknn.verdict import refused
from ..export.rknn.ways import ways
from ..models.npu import Part
from ..progress import silent
from ..runtime.rknn.simulator import save_samples
from ..runtime.rknn.toolkit import Toolkit
from ..runtime.sessions import Sessions

FIRST = "text_encoder"


def main(recipe: str, model: str, artifact: str, graph: str, told: str) -> None:
    settings = recipes.load(recipe).rknn
    assert settings is not None
    job = prepare(Path(model), Path(artifact), settings, ())
    (part,) = job.graphs[graph]
    with tempfile.TemporaryDirectory(dir=Path(told).parent) as folder, Toolkit() as toolkit:
        stage = Path(folder)
        files = {
            each.name: write(each, job.model, job.sources[each.graph.component], job.host.sizes, stage)
            for each in job.parts
        }
        floats = Sessions(files, keep=False)
        reference = Reference(job.model.folder, job.model.family, {})
        calls = recorded(job, floats, paint(reference, job.host, reference.ids(job.host), job.size), files)
        _sample(job, part, floats, calls, stage)
        found = {name: [_built(job, job.graphs[name][0], toolkit, files, calls, stage)] for name in (FIRST, graph)}
    first = calls[part.name][0]
    arrays: dict[str, Any] = {f"in.{port}": array for port, array in first.inputs.items()}
    np.savez(Path(told).with_suffix(".npz"), **arrays, out=first.output)
    Path(told).write_text(json.dumps(found), "utf-8")


def _sample(job: Job, part: Part, floats: Sessions, calls: Calls, stage: Path) -> None:
    """Calibration samples of a part that is rounded."""
    scheme = job.scheme(part)
    if scheme and scheme.rounds_activations:
        calibrate(job, floats, [part], job.model.folder / "tokenizer", stage, silent)
    elif scheme:
        save_samples([calls[part.name][0].inputs], stage / part.name)


def _built(job: Job, part: Part, toolkit: Toolkit, files: dict[str, Path], calls: Calls, stage: Path) -> dict[str, Any]:
    way = ways(job.precision(part), job.settings.target, job.scheme(part))[0]
    rknn = stage / f"{part.name}.rknn"
    measured = measure(
        toolkit, part.name, Files(files[part.name], stage / part.name, rknn, calls[part.name]), way.recipe
    )
    more = {"precision": way.precision, "bytes": rknn.stat().st_size, "refused": refused(way.precision, measured)}
    return measured.described() | more


if __name__ == "__main__":
    main(*sys.argv[1:])
