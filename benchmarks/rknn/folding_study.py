"""Measures what scale folding gains in 8 bits: parts built from a solution's weights, and from the model's own.

Both are calibrated on the same samples, and compared with the float graphs of the model. The denoiser is measured as a
whole as well: its graphs one after another, as they run in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...common.progress import Progress, no_progress
from ...export.graph.source_model import open_source
from ...export.rknn.building.builder import build_with_float_layers
from ...export.rknn.building.precision import list_build_options
from ...export.rknn.building.simulation import BuildRequest, build_and_simulate, compare_outputs
from ...export.rknn.calibration import DenoisingStep, collect_calibration_samples, denoise
from ...export.rknn.float_parts import FloatParts
from ...export.rknn.part_calls import PartCalls, generate_torch_image, pick_evenly, record_calls
from ...export.rknn.prepare import RknnJob, prepare_job
from ...models.base.npu import GraphPart
from ...recipes.rknn import RknnSettings
from ...runtime.rknn.part_chain import RunPart, dispatch_parts
from ...runtime.rknn.simulator import simulate
from ...runtime.rknn.toolkit import Toolkit
from ...runtime.rknn.vae_tiling import chain_graphs

DENOISER = "denoiser"  # its graphs together


@dataclass(frozen=True)
class FoldingErrors:
    """Simulated errors in 8 bits: norm of the error over that of the output, the largest of some calls.

    Attributes:
        plain: Of the model's own weights, quantized by the toolkit alone.
        folded: Of the solution's weights.
        mixed: Of the solution's weights, with the layers in float16 that an export keeps in it.
    """

    plain: float
    folded: float
    mixed: float


def compare_folding(
    source: Path,
    output: Path,
    settings: RknnSettings,
    folder: Path,
    progress: Progress = no_progress,
    timeout_s: float = 3600,
) -> dict[str, FoldingErrors]:
    """Measures every part that has a solution, and the denoiser.

    Args:
        source: A diffusers folder or an artifact folder.
        output: Artifact folder with the solutions.
        settings: Settings of the recipe; the precision is w8a8.
        folder: Folder that all files are written to.
        progress: Called with the stages of the export.
        timeout_s: Time that the toolkit may take for a part, in seconds.

    Returns:
        Errors by the part's name; those of the denoiser under `DENOISER`.

    Raises:
        UserError: As an export does.
    """
    job = prepare_job(open_source(source), output, settings.model_copy(update={"precision": "w8a8"}))
    weights = {name: replace(component, npu=component.unquantized) for name, component in job.weights.items()}
    unfolded_job = replace(job, weights=weights)
    plain, folded = FloatParts(unfolded_job, folder / "plain"), FloatParts(job, folder / "folded")
    plain.write_all(progress)
    folded.write_all(progress)
    floats = plain.open_sessions()
    calls = record_calls(unfolded_job, floats, generate_torch_image(job), plain.onnx_files)
    quantized_parts = [part for part in job.npu_parts if job.get_scheme(part)]
    job.model.write_tokenizer_files(folder / "tokenizer")
    collect_calibration_samples(unfolded_job, floats, quantized_parts, folder / "tokenizer", folder, progress)
    with Toolkit(timeout_s) as toolkit:
        trials = _FoldingTrials(unfolded_job, toolkit, folder, calls, floats)
        plain_errors = trials.measure_errors(plain.onnx_files, mixed=False)
        folded_errors = trials.measure_errors(folded.onnx_files, mixed=False)
        mixed_errors = trials.measure_errors(folded.onnx_files, mixed=True)
    return {name: FoldingErrors(plain_errors[name], folded_errors[name], mixed_errors[name]) for name in plain_errors}


class _FoldingTrials:
    """Builds the same parts from several ONNX files, and compares their outputs with those of the float parts.

    Args:
        job: The export with the model's own weights.
        toolkit: The toolkit that builds and simulates.
        folder: Folder with the calibration samples of the parts.
        calls: Recorded calls of the float parts.
        floats: Runs the float parts.
    """

    def __init__(self, job: RknnJob, toolkit: Toolkit, folder: Path, calls: PartCalls, floats: RunPart) -> None:
        self._job, self._toolkit, self._folder, self._calls, self._floats = job, toolkit, folder, calls, floats
        self._parts = [part for part in job.npu_parts if job.get_scheme(part)]
        self._steps = pick_evenly(list(denoise(job, floats, generate_torch_image(job).tokens, 0)))

    def measure_errors(self, files: Mapping[str, Path], mixed: bool) -> dict[str, float]:
        """Measures each quantized part, and the denoiser.

        Args:
            files: ONNX files of the parts, by name.
            mixed: Whether sensitive layers stay in float16.
        """
        errors = {part.name: self._measure_part(part, files[part.name], mixed) for part in self._parts}
        return errors | {DENOISER: max(self._measure_step(step) for step in self._steps)}

    def _measure_part(self, part: GraphPart, onnx: Path, mixed: bool) -> float:
        (option,) = list_build_options("w8a8", self._job.settings.target, self._job.get_scheme(part))
        files = BuildRequest(onnx, self._folder / part.name, self._folder / f"{part.name}.rknn", self._calls[part.name])
        if mixed:
            return build_with_float_layers(self._toolkit, part, option, files, True)[1].relative_error
        return build_and_simulate(self._toolkit, part.name, files, option.build_config).relative_error

    def _measure_step(self, step: DenoisingStep) -> float:
        names = {part.name for part in self._parts}
        run = dispatch_parts(names, lambda name, inputs: simulate(self._toolkit, name, inputs), self._floats)
        graphs = chain_graphs(self._job.host, self._job.part_refs, run)
        velocity = self._job.host.predict_velocity(graphs, step.latents, step.timestep, step.encoded_prompt)
        return compare_outputs(velocity, step.velocity)[0]
