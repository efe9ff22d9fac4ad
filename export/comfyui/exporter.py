"""Exports the transformer of a pipeline as a file that ComfyUI loads."""

from __future__ import annotations

from pathlib import Path

from ...common.progress import Progress, no_progress
from ...models.single_file_layouts import find_layouts
from ...storage.checkpoint import write_sharded
from ...storage.layout import COMFYUI
from ...storage.weight_export import ComponentRecord
from ..weights.publishing import WeightExportResult, open_export

ONE_FILE = 2**63  # bytes: ComfyUI reads single files


def export_comfyui(source: str | Path, output: str | Path, *, progress: Progress = no_progress) -> WeightExportResult:
    """Exports the transformer of a pipeline to `output/comfyui/transformer.safetensors`. The file is held in memory.

    Args:
        source: An artifact folder, or a quantized diffusers folder.
        output: The artifact folder.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it.

    Raises:
        UserError: An input is invalid, the family has no names for single files, or nothing is quantized to 4 bits.
    """
    export = open_export(source, output, COMFYUI)
    pipeline = export.pipeline
    component = pipeline.family.denoiser
    layout = find_layouts(pipeline.family, pipeline.configs)[component]
    export.require_int4(pipeline.has_int4(component))
    export.check_sources(progress)
    from ..weights.component import WeightReader
    from ..weights.safetensors_record import record_safetensors
    from .writer import ComfyLayers

    checkpoint = pipeline.open_checkpoint(component)
    weights = WeightReader(checkpoint, checkpoint.load_config())
    tensors = layout.names.group(weights.names())

    def write(folder: Path) -> dict[str, ComponentRecord]:
        layers = ComfyLayers(weights, tensors)
        files = write_sharded(layers.iterate(progress), folder, component, ONE_FILE)
        return {component: record_safetensors(files, weights, layers.max_difference)}

    return export.publish(write, ("safetensors",), progress)
