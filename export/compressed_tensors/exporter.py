"""Exports text encoders for transformers and vLLM, in the format `pack-quantized` of compressed-tensors."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...common.progress import Progress, no_progress
from ...storage.layout import COMPRESSED_TENSORS
from ...storage.weight_export import ComponentRecord
from ..weights.publishing import WeightExportResult, open_export


def export_compressed_tensors(
    source: str | Path, output: str | Path, *, progress: Progress = no_progress
) -> WeightExportResult:
    """Exports the quantized text encoders of a pipeline to `output/compressed-tensors`, a folder for each.

    Args:
        source: An artifact folder, or a quantized diffusers folder.
        output: The artifact folder.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it.

    Raises:
        UserError: An input is invalid, or no text encoder is quantized to 4 bits.
    """
    export = open_export(source, output, COMPRESSED_TENSORS)
    pipeline = export.pipeline
    encoders = [part.name for part in pipeline.family.components if part.role == "text_encoder"]
    quantized = [name for name in encoders if (pipeline.folder / name).is_dir() and pipeline.has_int4(name)]
    export.require_int4(bool(quantized), "text encoder with INT4 weights")
    export.check_sources(progress)
    from .writer import write_component

    def write(folder: Path) -> dict[str, ComponentRecord]:
        for tokenizer in pipeline.list_tokenizer_folders():
            shutil.copytree(tokenizer, folder / tokenizer.name)
        return {name: write_component(pipeline, name, folder / name, progress) for name in quantized}

    return export.publish(write, ("safetensors",), progress)
