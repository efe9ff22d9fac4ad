"""Exports the denoiser and the text encoder of a pipeline to one GGUF file each. Nothing is quantized again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...common.progress import Progress, no_progress
from ...storage.layout import GGUF
from ...storage.weight_export import ComponentRecord
from ..weights.publishing import WeightExportResult, open_export
from .preflight import GgufType, choose_layouts, require_solution


def export_gguf(
    source: str | Path,
    output: str | Path,
    *,
    type: GgufType | None = None,  # noqa: A002
    components: Sequence[str] = (),
    progress: Progress = no_progress,
) -> WeightExportResult:
    """Exports a quantized pipeline to `output/gguf`. An older export is replaced; after an error it is left alone.

    Args:
        source: An artifact folder, or a quantized diffusers folder.
        output: The artifact folder.
        type: `q4_0` takes the symmetric 4-bit solution, `q8_0` the 8-bit one, `q4_1` the model's own codes. Default:
            those, as Q4_0 where they are symmetric.
        components: Components to export; empty: all that the family describes.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it.

    Raises:
        UserError: An input is invalid, the family has no names for GGUF, or the artifact lacks what the type needs.
    """
    export = open_export(source, output, GGUF)
    pipeline = export.pipeline
    layouts = choose_layouts(pipeline, components)
    if type == "q8_0":
        for name in layouts:
            require_solution(pipeline, name, type)
    else:
        has_solution = type == "q4_0" and any(map(pipeline.find_symmetric_solution, layouts))
        export.require_int4(has_solution or any(map(pipeline.has_int4, layouts)))
    export.check_sources(progress)
    from .gguf_file import GgufFile, open_weights

    weights = {name: open_weights(pipeline, name, type) for name in layouts}
    files = {name: GgufFile(name, layout, weights[name], type) for name, layout in layouts.items()}

    def write(folder: Path) -> dict[str, ComponentRecord]:
        return {name: file.write(folder / f"{name}.gguf", pipeline, progress) for name, file in files.items()}

    return export.publish(write, ("gguf",), progress)
