"""Exports a pipeline to ONNX graphs with their weights beside them, published as one folder.

What can be checked without torch comes first, then its import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...common.progress import Progress, no_progress
from ...pipelines.preflight import check_images
from ...pipelines.recipe_sizes import check_preset_sizes
from ...recipes.execution import DEFAULT_RUNTIME, RuntimeSettings
from ...recipes.loader import validate_settings
from ...recipes.presets import DEFAULT_PRESETS, Presets
from ...recipes.schema import ExportSettings
from ...storage.files import digest_files
from ...storage.layout import Artifact
from ...storage.publishing import artifact_lock, publish_folder, staging_folder
from ...storage.snapshot import FolderSnapshot
from .preflight import ExportInputs, ImageSizes, check_inputs

if TYPE_CHECKING:
    from ..verification.parity import Parity

PARITY_TITLES = {"exact": "Graphs against torch", "exported": "Graphs with int8 products against torch"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """A published export. `print` shows it as a table.

    Attributes:
        folder: The published folder.
        parity: The difference from torch: `exact` without int8 products, and `exported` with them if there are any.
            Empty if the graphs were not verified.
        tensorrt_unsupported_reason: Why there is no script for TensorRT although the format is qdq; else empty.
    """

    folder: Path
    parity: Mapping[str, Parity] = field(default_factory=dict)
    tensorrt_unsupported_reason: str = ""

    @property
    def graph_files(self) -> list[Path]:
        """The published graphs, sorted by name."""
        return sorted(self.folder.glob("*.onnx"))

    def __str__(self) -> str:
        lines = [f"ONNX export in {self.folder}"]
        for name, parity in self.parity.items():
            lines += ["", f"{PARITY_TITLES[name]}:", *str(parity).splitlines()]
        if not self.parity:
            lines.append("not verified")
        if self.tensorrt_unsupported_reason:
            lines += ["", self.tensorrt_unsupported_reason]
        return "\n".join(lines)


def _warn_about_ineffective(overrides: Mapping[str, Any], settings: ExportSettings) -> None:
    """Logs which settings were given that the others make ineffective."""
    conditions = {
        "format": ("precision", "int4"),
        "accuracy_level": ("precision", "int4"),
        "float_dtype": ("precision", "int4"),
        "activations": ("precision", "w8a8"),
        "max_prompt_tokens": ("shapes", "fixed"),
    }
    for name, (key, needed) in conditions.items():
        if overrides[name] is not None and getattr(settings, key) != needed:
            logger.warning("%s has no effect: %s is %s, not %s.", name, key, getattr(settings, key), needed)


def _check_sizes(inputs: ExportInputs, presets: Presets, verify: bool) -> None:
    """Raises UserError where the pipeline cannot generate images of the presets, or those that verify the graphs."""
    if inputs.host is not None:
        check_preset_sizes(presets, inputs.source.family, inputs.source.configs)
    for size in inputs.sizes if verify else ():
        check_images(inputs.source.folder, *size)


def export_onnx(
    source: str | Path,
    output: str | Path,
    settings: ExportSettings | None = None,
    *,
    precision: Literal["fp32", "fp16", "int4", "w8a8"] | None = None,
    format: Literal["ort", "qdq"] | None = None,  # noqa: A002
    activations: Literal["dynamic", "static"] | None = None,
    accuracy_level: Literal[0, 4] | None = None,
    float_dtype: Literal["fp32", "fp16"] | None = None,
    opset: int | None = None,
    shapes: Literal["dynamic", "fixed"] | None = None,
    max_prompt_tokens: int | None = None,
    extra_graphs: Sequence[str] | None = None,
    sizes: ImageSizes = (),
    presets: Presets = DEFAULT_PRESETS,
    runtime: RuntimeSettings = DEFAULT_RUNTIME,
    verify: bool = True,
    check_fit: Callable[[], object] | None = None,
    progress: Progress = no_progress,
) -> ExportResult:
    """Exports a pipeline to `output/onnx`. An existing export there is replaced on success, and else left alone.

    Args:
        source: A diffusers folder, quantized or not, or an artifact folder.
        output: The artifact folder. The export goes to its subfolder `onnx`.
        settings: Settings of the export, such as those of a recipe. Further arguments override single ones.
        precision: Precision of the graphs: `int4` takes the weights of a quantized model, `w8a8` an INT8 solution.
        format: `ort` uses ONNX Runtime's operators, `qdq` standard ONNX with DequantizeLinear, as TensorRT needs.
        activations: For w8a8, `dynamic` scales per token or `static` scales from calibration.
        accuracy_level: For int4 in ONNX Runtime, 0 multiplies in floats and 4 in int8.
        float_dtype: For int4, the dtype of what is not quantized.
        opset: ONNX opset.
        shapes: `dynamic` axes, or `fixed` ones with one file per image size and prompt length.
        max_prompt_tokens: With fixed shapes, tokens of the longest prompt.
        extra_graphs: Optional graphs, such as `vae_encoder`.
        sizes: Heights and widths in pixels of the images to verify, and with fixed shapes to export. Default: those of
            the settings, or else the model's native size.
        presets: Settings to generate images with, which the export records.
        runtime: How graphs run on the device, which the export records.
        verify: Whether to compare the graphs with torch, which takes the memory of running both.
        check_fit: Called once all is checked that takes no time: whether the device can run the result.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and how far the graphs are from torch.

    Raises:
        UserError: An input or a setting is invalid (raised before anything is written), weights changed since they were
            quantized, or graphs deviate more from torch than the precision may.
    """
    overrides = {
        "precision": precision,
        "format": format,
        "activations": activations,
        "accuracy_level": accuracy_level,
        "float_dtype": float_dtype,
        "opset": opset,
        "shapes": shapes,
        "max_prompt_tokens": max_prompt_tokens,
        "extra_graphs": extra_graphs,
    }
    values = (settings or ExportSettings()).model_dump()
    values |= {name: value for name, value in overrides.items() if value is not None}
    merged = validate_settings(ExportSettings, values)
    _warn_about_ineffective(overrides, merged)
    if sizes and not verify and merged.shapes != "fixed":
        logger.warning("sizes have no effect: shapes are dynamic, and no image is verified.")
    artifact = Artifact(Path(output))
    inputs = check_inputs(Path(source), artifact.path, merged, sizes or merged.sizes)
    _check_sizes(inputs, presets, verify)
    inputs.source.check_recorded(progress)
    if check_fit:
        check_fit()
    from .prepare import plan_export
    from .traced_graphs import trace_graphs
    from .verifier import verify_graphs
    from .writer import OnnxWriter

    plan = plan_export(inputs)
    snapshot = FolderSnapshot.take(plan.source.folder)
    with artifact_lock(artifact.path) as work, staging_folder(work, "onnx") as stage:
        with ThreadPoolExecutor(1) as pool:
            hashes = pool.submit(plan.source.verify_and_hash, progress)  # meanwhile: tracing and writing take longer
            graphs = trace_graphs(plan, progress)
            writer = OnnxWriter(plan, graphs, stage)
            writer.write_graphs(progress)
            sources = hashes.result()
        writer.write_tokenizers()
        parity = verify_graphs(plan, graphs, stage, progress) if verify else {}
        writer.remove_reference_graphs()
        writer.write_engine_script()
        snapshot.require_unchanged()
        is_own_model = plan.source.folder.resolve() == artifact.model.resolve()
        writer.write_config(sources, digest_files(sources) if is_own_model else "", parity, presets, runtime)
        publish_folder(stage, artifact.onnx)
    if plan.tensorrt_unsupported_reason:
        logger.warning(plan.tensorrt_unsupported_reason)
    return ExportResult(artifact.onnx, parity, plan.tensorrt_unsupported_reason)
