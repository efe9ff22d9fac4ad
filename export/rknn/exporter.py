"""From a pipeline folder to the parts that a Rockchip board's NPU runs, simulated and published as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...models.base.npu import GraphPart
from ...recipes.schema import RknnSettings
from ...runtime.rknn.exported import EMBEDDINGS_FILE, RKNN_FOLDER, SIMULATOR_FOLDER
from ...runtime.rknn.part_chain import RunPart
from ...runtime.rknn.simulator import save_calibration_samples, simulate
from ...runtime.rknn.toolkit import Toolkit
from ...runtime.rknn.vae_tiling import chain_graphs
from ...storage import publishing
from ..verification.image_parity import ReferenceImage, compute_psnr, generate_with_graphs
from .board_kit import write_board_kit
from .building.builder import BuiltPart, build_part
from .building.precision import BuildOption, list_build_options
from .building.simulation import BuildRequest, GoldenSample
from .calibration import PartCalls, collect_calibration_samples, generate_torch_image, record_calls, rerun_calls
from .float_parts import FloatParts
from .pipeline_config import write_pipeline_config
from .prepare import RknnJob, prepare_job

MIN_PSNR = {"fp16": 35.0, "w8a8": 0.0, "w4a16": 0.0, "auto": 0.0}  # dB, of the simulated picture and torch's


@dataclass(frozen=True)
class RknnExportResult:
    """What exporting left: the published folder, and the parts that it holds for the NPU.

    picture: decibels from torch's picture, by whom it was painted (None: equal); empty where not all parts could be run
    together.
    """

    folder: Path
    parts: dict[str, BuiltPart]
    image_psnr: dict[str, float | None]


def export_rknn(
    source: Path,
    output: Path,
    settings: RknnSettings,
    components: Sequence[str] = (),
    progress: Progress = no_progress,
    timeout_s: float = 3600,
) -> RknnExportResult:
    """Exports the pipeline in `source` to `output/rknn`; an older export there is replaced, or else left as it is.

    Args:
        source: a diffusers folder or an artifact folder; 4- and 8-bit solutions come from `output/model`.
        components: to export; none: all.
        limit: seconds that the toolkit may take for a part.

    Raises:
        UserError: bad input or no toolkit (before anything is written), a part or picture that is further from its
            reference than its precision may be.
    """
    job = prepare_job(source, output, settings, components)
    with publishing.artifact_lock(output) as work:
        stage = work / "export-rknn"
        shutil.rmtree(stage, ignore_errors=True)
        (stage / SIMULATOR_FOLDER).mkdir(parents=True)
        try:
            with Toolkit(timeout_s) as toolkit:
                parts, picture = RknnExporter(job, stage, toolkit, progress).run()
            publishing.publish_folder(stage, output / RKNN_FOLDER)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return RknnExportResult(output / RKNN_FOLDER, parts, picture)


class RknnExporter:
    """One export at work in a folder: `stage`."""

    def __init__(self, job: RknnJob, stage: Path, toolkit: Toolkit, progress: Progress) -> None:
        self._job, self._stage, self._toolkit, self._progress = job, stage, toolkit, progress
        self._float_parts = FloatParts(job, stage)

    def run(self) -> tuple[dict[str, BuiltPart], dict[str, float | None]]:
        """Everything but publishing: the parts for the NPU, and what was measured of the picture."""
        job = self._job
        sources = job.model.verify_and_hash(self._progress)
        version = str(self._toolkit.call("hello").answer["toolkit"])
        self._float_parts.write_all(self._progress)
        np.save(self._stage / EMBEDDINGS_FILE, job.embeddings)
        job.write_tokenizer(self._stage / "tokenizer")
        painted = generate_torch_image(job) if job.is_complete else None
        calls = record_calls(job, self._float_parts.open_sessions(), painted, self._float_parts.onnx_files)
        self._save_samples(calls)
        parts = self._build_parts(calls)
        pictures = self._measure_image_psnr(painted)
        self._save_goldens(calls)
        write_pipeline_config(job, self._stage, version, parts, pictures, [file.model_dump() for file in sources])
        write_board_kit(self._stage)
        return parts, pictures

    def _save_samples(self, calls: PartCalls) -> None:
        """Calibration samples of the parts that are rounded; where activations stay floats the toolkit reads none.

        Raises:
            UserError: graphs are missing that painting takes.
        """
        job = self._job
        rounded = [(part, scheme) for part in job.npu_parts if (scheme := job.get_scheme(part))]
        eight = [part for part, scheme in rounded if scheme.quantizes_activations]
        if eight and not job.is_complete:
            raise UserError("Calibration paints, which takes all components; leave --component out.")
        folder = self._stage / SIMULATOR_FOLDER
        if eight:
            collect_calibration_samples(
                job, self._float_parts.open_sessions(), eight, self._stage / "tokenizer", folder, self._progress
            )
        for part, scheme in rounded:
            if not scheme.quantizes_activations:
                save_calibration_samples([calls[part.name][0].inputs], folder / part.name)

    def _build_parts(self, calls: PartCalls) -> dict[str, BuiltPart]:
        """Builds the NPU's parts, each in the first precision that is good enough.

        Raises:
            UserError: none is.
        """
        parts, found = self._job.npu_parts, {}
        for number, part in enumerate(parts):
            self._progress("building", number, len(parts))
            choices = list_build_options(
                self._job.get_precision(part), self._job.settings.target, self._job.get_scheme(part)
            )
            found[part.name] = self._build_part(part, choices, calls)
            if not self._float_parts.is_small:
                self._toolkit.call("drop", model=part.name)
        self._progress("building", len(parts), len(parts))
        return found

    def _build_part(
        self, part: GraphPart, choices: Sequence[BuildOption], calls: dict[str, list[GoldenSample]]
    ) -> BuiltPart:
        samples, rknn = self._stage / SIMULATOR_FOLDER / part.name, self._stage / f"{part.name}.rknn"

        def files(way: BuildOption) -> BuildRequest:
            if not way.build_config.is_quantized and self._job.get_scheme(
                part
            ):  # what is not rounded loses nothing by a solution
                shutil.rmtree(samples)
                self._float_parts.write(part, self._job.float_weights[part.graph.component])
                calls[part.name] = rerun_calls(calls[part.name], part.name, self._float_parts.onnx_files[part.name])
            return BuildRequest(self._float_parts.onnx_files[part.name], samples, rknn, calls[part.name])

        return build_part(self._toolkit, part, choices, files, self._float_parts.is_small)

    def _measure_image_psnr(self, reference_image: ReferenceImage | None) -> dict[str, float | None]:
        """Decibels from torch's picture, of the float parts and of the simulated ones.

        Raises:
            UserError: too few.
        """
        if reference_image is None or not self._float_parts.is_small:
            return {}
        job, floats = self._job, self._float_parts.open_sessions()
        on_npu = {part.name for part in job.npu_parts}
        simulated: RunPart = lambda name, inputs: (  # noqa: E731
            simulate(self._toolkit, name, inputs) if name in on_npu else floats(name, inputs)
        )
        found = {}
        painters: list[tuple[str, RunPart]] = [("float", floats), ("simulated", simulated)]
        for number, (name, run) in enumerate(painters):
            self._progress("painting", number, len(painters))
            found[name] = compute_psnr(
                reference_image.pixels,
                generate_with_graphs(
                    replace(reference_image, host=job.host), chain_graphs(job.host, job.part_refs, run)
                ),
            )
        self._progress("painting", len(painters), len(painters))
        least, decibels = MIN_PSNR[job.settings.precision], found["simulated"]
        if decibels is not None and decibels < least:
            raise UserError(
                f"The simulated picture is {decibels:.1f} dB from torch's, where {least:.0f} dB is the least; "
                "nothing was published."
            )
        return found

    def _save_goldens(self, calls: PartCalls) -> None:
        """The first call of each part as golden/NAME.npz: inputs as `in.PORT` in their order, the output as `out`."""
        folder = self._stage / "golden"
        folder.mkdir()
        for name, (first, *_) in calls.items():
            arrays: dict[str, Any] = {f"in.{port}": array for port, array in first.inputs.items()}
            np.savez(folder / f"{name}.npz", **arrays, out=first.output)
