"""Exports a pipeline as a folder that stock diffusers and transformers open with the package auto-round."""

from __future__ import annotations

from pathlib import Path

from ...common.progress import Progress, no_progress
from ...storage.files import read_json_object
from ...storage.layout import DIFFUSERS, MODEL_INDEX
from ...storage.weight_export import ComponentRecord
from ..weights.publishing import WeightExportResult, open_export
from .readme import write_readme


def export_diffusers(source: str | Path, output: str | Path, *, progress: Progress = no_progress) -> WeightExportResult:
    """Exports a quantized pipeline to `output/diffusers`. An older export is replaced; after an error it is left alone.

    Args:
        source: An artifact folder, or a quantized diffusers folder.
        output: The artifact folder.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it.

    Raises:
        UserError: An input is invalid, or nothing in it is quantized to 4 bits.
    """
    export = open_export(source, output, DIFFUSERS)
    pipeline = export.pipeline
    index = read_json_object(pipeline.folder / MODEL_INDEX)
    entries = {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and _is_quantized(pipeline.folder / name)
    }
    export.require_int4(any(map(pipeline.has_int4, entries)))
    export.check_sources(progress)
    from .writer import QuantizedComponent, copy_files

    components = {name: QuantizedComponent(pipeline, name, entry) for name, entry in entries.items()}

    def write(folder: Path) -> dict[str, ComponentRecord]:
        copy_files(pipeline.folder, folder, components)
        write_readme(folder, pipeline.family.pipeline_class)
        return {name: component.write(folder / name, progress) for name, component in components.items()}

    return export.publish(write, ("safetensors",), progress)


def _is_quantized(component: Path) -> bool:
    config = component / "config.json"
    return config.is_file() and "quantization_config" in read_json_object(config)
