"""From a pipeline folder to the graphs, weights and words that a device runs, published as one folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...common.progress import Progress, no_progress
from ...recipes.schema import ExportSettings
from ...storage import publishing
from ..verification.parity import Parity
from .job import Sizes
from .prepare import plan_export


@dataclass(frozen=True)
class ExportResult:
    """What exporting left: the published folder, and how far the graphs are from torch (empty: not looked at).

    without_script: why there is no script for TensorRT, though the flavour is its; else empty.
    """

    folder: Path
    parity: dict[str, Parity]
    tensorrt_unsupported_reason: str = ""


def export_onnx(
    source: Path,
    output: Path,
    settings: ExportSettings,
    sizes: Sizes = (),
    progress: Progress = no_progress,
    verify: bool = True,
) -> ExportResult:
    """Exports the pipeline in `source` to `output/onnx`; an older export there is replaced, or else left as it is.

    Args:
        source: a diffusers folder, pressed or not, or an artifact folder.
        sizes: (height, width) in pixels of the pictures that parity is looked at with; none: the model's native size.
        check: whether to hold the graphs against torch, which takes the memory of running both.

    Raises:
        UserError: bad input (before anything is written), weights that changed since they were quantized, graphs that
            are further from torch than the precision may be.
    """
    job = plan_export(source, output, settings, sizes)
    with publishing.artifact_lock(output) as work:
        stage = work / "export-onnx"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        try:
            parity = job.write(stage, progress, verify)
            publishing.publish_folder(stage, output / "onnx")
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return ExportResult(output / "onnx", parity, job.tensorrt_unsupported_reason)
