"""What an export says of itself: pipeline.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models.base.npu import GraphPart
from ...runtime.rknn.exported import CONFIG_FILE, SCHEMA_VERSION, BuildConfig, ExportedPart, part_to_json
from ...storage.files import hash_file, write_json
from .building.builder import BuiltPart
from .prepare import RknnJob, get_input_names


def write_pipeline_config(
    job: RknnJob,
    stage: Path,
    toolkit_version: str,
    parts: Mapping[str, BuiltPart],
    image_psnr: Mapping[str, float | None],
    sources: list[dict[str, Any]],
) -> None:
    """Writes pipeline.json into a folder.

    Args:
        version: of the toolkit. parts: those of the NPU, by name. sources: files that the pipeline came in.
    """
    graphs = {
        name: [_describe_part(part, parts.get(part.name), stage) for part in found]
        for name, found in job.graphs.items()
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "family": job.model.family.pipeline_class,
        "target": job.settings.target,
        "toolkit": toolkit_version,
        "size": list(job.image_size),
        "tokens": job.settings.max_prompt_tokens,
        "tile": job.host.decoder_tiling.tile_size if job.host.decoder_tiling else None,
        "settings": job.settings.model_dump(mode="json"),
        "graphs": graphs,
        "host": job.model.configs(),
        "picture": image_psnr,
        "verified_on_a_board": False,
        "sources": sources,
    }
    write_json(content, stage / CONFIG_FILE)


def _describe_part(part: GraphPart, built: BuiltPart | None, stage: Path) -> dict[str, Any]:
    if built is None:
        said = part_to_json(ExportedPart(part.name, get_input_names(part), "cpu", BuildConfig({})))
        return said | {"status": "not simulated: it runs on the CPU"}
    said = part_to_json(ExportedPart(part.name, get_input_names(part), "npu", built.build_config))
    file = stage / f"{part.name}.rknn"
    size = {"bytes": file.stat().st_size, "sha256": hash_file(file)}
    return said | size | built.measurement.to_json() | built.to_json() | {"status": "simulated"}
