"""One run of an export to an NPU: writes, builds, simulates and verifies all parts."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np

from ...common.progress import Progress
from ...models.base.npu import GraphPart
from ...recipes.execution import DEFAULT_RUNTIME, RuntimeSettings
from ...recipes.presets import DEFAULT_PRESETS, Presets
from ...runtime.rknn.exported import EMBEDDINGS_FILE
from ...runtime.rknn.part_chain import RunPart, dispatch_parts
from ...runtime.rknn.simulator import simulate
from ...runtime.rknn.toolkit import Toolkit
from ...storage.files import digest_files
from ...storage.layout import SIMULATOR_FOLDER
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
from .prepare import RknnJob

logger = logging.getLogger(__name__)


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
