"""Exports a pipeline to parts for the NPU of a Rockchip board: builds, simulates and publishes them as one folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...common.progress import Progress, no_progress
from ...models.base.npu import GraphPart
from ...recipes.execution import DEFAULT_RUNTIME, RuntimeSettings
from ...recipes.presets import DEFAULT_PRESETS, Presets
from ...recipes.schema import Recipe
from ...runtime.rknn.exported import EMBEDDINGS_FILE
from ...runtime.rknn.part_chain import RunPart, dispatch_parts
from ...runtime.rknn.simulator import simulate
from ...runtime.rknn.toolkit import Toolkit, find_interpreter
from ...storage.files import digest_files
from ...storage.layout import SIMULATOR_FOLDER, Artifact
from ...storage.publishing import artifact_lock, publish_folder, staging_folder
from ..graph.preflight import check_export
from ..graph.source_model import open_source
from ..verification.image_parity import ReferenceImage
from .board_kit import write_board_kit
from .building.builder import BuiltPart, build_part
from .building.precision import BuildOption, list_build_options
from .building.simulation import BuildRequest
from .calibration import write_calibration_samples
from .float_parts import FloatParts
from .image_check import measure_image_psnr, require_min_psnr
from .part_calls import PartCalls, generate_torch_image, record_calls, rerun_calls, save_first_calls
from .pipeline_config import write_pipeline_config
from .planning.estimator import make_memory_plan
from .prepare import RknnJob, prepare_job
from .settings import require_rknn_settings

logger = logging.getLogger(__name__)

MIN_WEIGHT_BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4, "auto": 4}  # of the narrowest weights, by precision


@dataclass(frozen=True)
class RknnExportResult:
    """The result of an export. `str()` gives a summary.

    Attributes:
        folder: The published folder.
        parts: The built parts, by name.
        image_psnr: PSNR to torch's image in dB, of the "float" and of the "simulated" parts; None: the image is equal.
            Empty if no image was generated.
    """

    folder: Path
    parts: Mapping[str, BuiltPart]
    image_psnr: Mapping[str, float | None]

    def __str__(self) -> str:
        width = max(map(len, self.parts), default=0)
        lines = [
            f"  {name:{width}}  {part.precision:5}  {len(part.measurement.build_log.layers)} layers on the NPU, "
            f"relative error {part.measurement.relative_error:.2g}, cosine {part.measurement.cosine:.5f}"
            for name, part in self.parts.items()
        ]
        for name, psnr in self.image_psnr.items():
            lines.append(f"  {name} image: " + ("equal to torch's" if psnr is None else f"{psnr:.1f} dB PSNR"))
        return "\n".join([f"RKNN parts in {self.folder}, simulated and not verified on a board:", *lines])


def export_rknn(
    source: Path,
    output: Path,
    recipe: Recipe,
    *,
    components: Sequence[str] = (),
    progress: Progress = no_progress,
    timeout_s: float = 3600,
) -> RknnExportResult:
    """Exports a pipeline to `output/rknn`. An older export is replaced; after an error it is left unchanged.

    Args:
        source: A diffusers folder or an artifact folder.
        output: Artifact folder. 4- and 8-bit solutions come from its folder `model`, if there is one.
        recipe: A recipe with a section `rknn`.
        components: Components to export; empty: all, and then the board must have the memory for them.
        progress: Called with the stages of the export.
        timeout_s: Time that the toolkit may take for a part, in seconds.

    Returns:
        The published folder, its parts, and how close they are to floats.

    Raises:
        UserError: The input is invalid, the toolkit is missing, or the board cannot hold the parts (all checked before
            anything is written); or a part or the image is too far from its reference.
    """
    settings = require_rknn_settings(recipe)
    find_interpreter()
    model = open_source(source)
    check_export(model, Artifact(output).rknn, 0 if components else MIN_WEIGHT_BITS[settings.precision])
    if not components:
        make_memory_plan(model, recipe).require_recipe_fits()
    job = prepare_job(model, output, settings, components)
    with artifact_lock(output) as work, staging_folder(work, "rknn") as stage:
        (stage / SIMULATOR_FOLDER).mkdir()
        with staging_folder(work, "toolkit") as toolkit_folder, Toolkit(timeout_s, toolkit_folder) as toolkit:
            parts, image_psnr = RknnExporter(job, stage, toolkit, progress, recipe.presets, recipe.runtime).run()
        publish_folder(stage, Artifact(output).rknn)
    return RknnExportResult(Artifact(output).rknn, parts, image_psnr)


class RknnExporter:
    """Writes, builds and verifies all parts of one export.

    Args:
        job: The export.
        stage: Folder that everything is written to.
        toolkit: The toolkit that builds and simulates.
        progress: Called with the stages of the export.
        presets: The recipe's presets, which the export records.
        runtime: How graphs run on the device's CPU, which the export records.
    """

    def __init__(
        self,
        job: RknnJob,
        stage: Path,
        toolkit: Toolkit,
        progress: Progress,
        presets: Presets = DEFAULT_PRESETS,
        runtime: RuntimeSettings = DEFAULT_RUNTIME,
    ) -> None:
        self._job, self._stage, self._toolkit, self._progress = job, stage, toolkit, progress
        self._presets, self._runtime = presets, runtime
        self._float_parts = FloatParts(job, stage)

    def run(self) -> tuple[dict[str, BuiltPart], dict[str, float | None]]:
        """Writes all files of the export.

        Returns:
            The built parts by name, and the PSNR of the images.

        Raises:
            UserError: A part or the image is rejected, or the toolkit fails.
        """
        job, stage, progress = self._job, self._stage, self._progress
        sources = job.model.verify_and_hash(progress)
        model_sha256 = digest_files(job.quantized_model.verify_and_hash(progress)) if job.uses_quantized_model else ""
        toolkit_version = str(self._toolkit.call("version").answer["toolkit"])
        self._float_parts.write_all(progress)
        np.save(stage / EMBEDDINGS_FILE, job.embeddings)
        job.model.write_tokenizer_files(stage / "tokenizer")
        reference_image = generate_torch_image(job) if job.is_complete else None
        calls = record_calls(job, self._float_parts.open_sessions(), reference_image, self._float_parts.onnx_files)
        write_calibration_samples(
            job,
            job.npu_parts,
            self._float_parts.open_sessions(),
            calls,
            stage / "tokenizer",
            stage / SIMULATOR_FOLDER,
            progress,
        )
        parts = self._build_parts(calls)
        image_psnr = self._check_image(reference_image)
        save_first_calls(calls, stage / "golden")
        write_board_kit(stage)
        write_pipeline_config(
            job, stage, toolkit_version, parts, image_psnr, sources, model_sha256, self._presets, self._runtime
        )
        return parts, image_psnr

    def _build_parts(self, calls: PartCalls) -> dict[str, BuiltPart]:
        """Builds the parts on the NPU, each with the first option that is accepted."""
        parts, built_parts = self._job.npu_parts, {}
        for number, part in enumerate(parts):
            self._progress("building", number, len(parts))
            built_parts[part.name] = self._build_part(part, calls)
            if not self._float_parts.is_small:
                self._toolkit.call("release", model=part.name)
        self._progress("building", len(parts), len(parts))
        return built_parts

    def _build_part(self, part: GraphPart, calls: PartCalls) -> BuiltPart:
        scheme = self._job.get_scheme(part)
        options = list_build_options(self._job.get_precision(part), self._job.settings.target, scheme)
        samples = self._stage / SIMULATOR_FOLDER / part.name

        def make_request(option: BuildOption) -> BuildRequest:
            if scheme and not option.build_config.is_quantized:  # in fp16 the model's own weights are closer
                shutil.rmtree(samples)
                self._float_parts.write(part, self._job.weights[part.graph.component].unquantized)
                calls[part.name] = rerun_calls(calls[part.name], part.name, self._float_parts.onnx_files[part.name])
            rknn_file = self._stage / f"{part.name}.rknn"
            return BuildRequest(self._float_parts.onnx_files[part.name], samples, rknn_file, calls[part.name])

        built_part = build_part(self._toolkit, part, options, make_request, self._float_parts.is_small)
        for rejection in built_part.rejections:
            logger.info(
                "Part %s is built in %s, because %s was rejected: %s.",
                *(part.name, built_part.precision, rejection.precision, rejection.reason),
            )
        return built_part

    def _check_image(self, reference_image: ReferenceImage | None) -> dict[str, float | None]:
        """Measures the PSNR of the image of the float parts and of the simulated ones; of small models only.

        Raises:
            UserError: It is too low.
        """
        if reference_image is None or not self._float_parts.is_small:
            return {}
        run_float = self._float_parts.open_sessions()
        npu_parts = {part.name for part in self._job.npu_parts}
        run_simulated = dispatch_parts(npu_parts, lambda name, inputs: simulate(self._toolkit, name, inputs), run_float)
        runners: dict[str, RunPart] = {"float": run_float, "simulated": run_simulated}
        image_psnr = measure_image_psnr(self._job, reference_image, runners, self._progress)
        require_min_psnr(image_psnr["simulated"], self._job.settings.precision)
        return image_psnr
