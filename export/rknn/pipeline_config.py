"""Writes the pipeline.json of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...models.base.npu import GraphPart
from ...recipes.execution import RuntimeSettings
from ...recipes.presets import Presets
from ...storage.files import FileRecord, hash_file
from ...storage.pipeline_config import (
    BuildRecord,
    LayerErrorConfig,
    OperatorsConfig,
    PartConfig,
    PartMemoryConfig,
    RejectionConfig,
    RknnPipelineConfig,
    SimulationConfig,
    write_config,
)
from ..graph.recipe_configs import describe_presets, describe_runtime
from .building.builder import BuiltPart
from .building.simulation import BuildMeasurement
from .prepare import RknnJob, get_input_names

NUM_WORST_LAYERS = 5  # of each part that are listed


def write_pipeline_config(
    job: RknnJob,
    folder: Path,
    toolkit_version: str,
    parts: Mapping[str, BuiltPart],
    image_psnr: Mapping[str, float | None],
    sources: Sequence[FileRecord],
    model_sha256: str,
    presets: Presets,
    runtime: RuntimeSettings,
) -> None:
    """Writes pipeline.json and SHA256SUMS to a folder that has all other files of the export.

    Args:
        job: The export.
        folder: The folder.
        toolkit_version: Version of rknn-toolkit2.
        parts: The built parts of the NPU, by name.
        image_psnr: PSNR of the images in dB.
        sources: Files of the source pipeline.
        model_sha256: Digest of the model of the artifact if parts were made from it; else empty.
        presets: The recipe's presets.
        runtime: How graphs run on the device's CPU.
    """
    config = RknnPipelineConfig(
        family=job.model.family.pipeline_class,
        target=job.settings.target,
        toolkit=toolkit_version,
        size=job.image_size,
        max_prompt_tokens=job.settings.max_prompt_tokens,
        tile=job.host.decoder_tiling.tile_size if job.host.decoder_tiling else None,
        settings=job.settings.model_dump(mode="json"),
        graphs={
            name: tuple(_describe_part(part, parts.get(part.name), folder) for part in graph_parts)
            for name, graph_parts in job.graphs.items()
        },
        host=dict(job.model.configs),
        image_psnr=dict(image_psnr),
        sources=tuple(sources),
        model_sha256=model_sha256,
        presets=describe_presets(presets, has_fixed_size=True),
        runtime=describe_runtime(runtime),
    )
    write_config(config, folder)


def _describe_part(part: GraphPart, built_part: BuiltPart | None, folder: Path) -> PartConfig:
    if built_part is None:
        return PartConfig(
            name=part.name,
            inputs=get_input_names(part),
            device="cpu",
            config={},
            quantized=False,
            float_layers=(),
            status="not simulated: it runs on the CPU",
        )
    file = folder / f"{part.name}.rknn"
    return PartConfig(
        name=part.name,
        inputs=get_input_names(part),
        device="npu",
        config=dict(built_part.build_config.toolkit_config),
        quantized=built_part.build_config.is_quantized,
        float_layers=built_part.build_config.float_layers,
        bytes=file.stat().st_size,
        sha256=hash_file(file),
        precision=built_part.precision,
        rejected=tuple(
            RejectionConfig(precision=rejection.precision, reason=rejection.reason)
            for rejection in built_part.rejections
        ),
        status="simulated",
        **describe_measurement(built_part.measurement),
    )


def describe_measurement(measurement: BuildMeasurement) -> dict[str, Any]:
    """Returns the fields of `PartConfig` that record what was measured of a built part."""
    log = measurement.build_log
    not_on_npu = tuple(f"{layer.operator} {layer.name}".strip() for layer in log.layers_not_on_npu)
    return {
        "operators": OperatorsConfig(npu=len(log.layers) - len(not_on_npu), not_on_npu=not_on_npu),
        "errors": log.errors,
        "memory": PartMemoryConfig(weights=log.weight_bytes, internal=log.internal_bytes),
        "simulated": SimulationConfig(relative_error=measurement.relative_error, cosine=measurement.cosine),
        "worst_layers": tuple(
            LayerErrorConfig(operator=layer.operator, name=layer.name, error=layer.error)
            for layer in measurement.layer_errors[:NUM_WORST_LAYERS]
        ),
        "build": BuildRecord(seconds=round(measurement.build_seconds, 1), peak_bytes=measurement.peak_bytes),
    }
