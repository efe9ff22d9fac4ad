"""Checks an export before any work: the pipeline's files, the output's rights, and room on the disk."""

from __future__ import annotations

import math
from pathlib import Path

from ...pipelines.preflight import check_exported_schedule, check_pipeline, warn_about_scheduler_options
from ...storage.layout import CONFIG_NAME, Artifact
from ...storage.preflight import check_disk_space, check_output, check_replaceable
from .source_model import SourcePipeline

INT4_PER_INT32 = 8


def check_export(pipeline: SourcePipeline, target: Path, bits_per_weight: int = 0) -> None:
    """Checks that a pipeline is complete and that its graphs can be written.

    Args:
        pipeline: The pipeline.
        target: The folder that is written or replaced: `onnx` or `rknn` in an artifact.
        bits_per_weight: Bits of the narrowest weights that the graphs may have; 0 if the room is checked later.

    Raises:
        UserError: A file of the pipeline is missing, its scheduler is not supported, a value of a config is invalid,
            the artifact cannot be written, the disk has too little room, or the folder holds what edgepress did not
            make.
    """
    artifact = Artifact.containing(target).path
    check_output(artifact)
    check_replaceable(target, [target / CONFIG_NAME])
    check_pipeline(pipeline.folder)
    warn_about_scheduler_options(pipeline.folder)
    check_exported_schedule(pipeline.folder, pipeline.family)  # with which the graphs are run later
    check_disk_space(artifact, count_denoiser_weights(pipeline) * bits_per_weight // 8)


def count_denoiser_weights(pipeline: SourcePipeline) -> int:
    """The number of weights of a pipeline's denoiser, which is exported as a whole; from headers."""
    checkpoint = pipeline.open_checkpoint(pipeline.family.denoiser)
    sizes = {name: math.prod(checkpoint.shape(name)) for name in checkpoint.names()}
    scales = (".scales", ".qzeros")
    return sum(
        size * (INT4_PER_INT32 if name.endswith(".qweight") else 1)
        for name, size in sizes.items()
        if not name.endswith(scales)
    )
