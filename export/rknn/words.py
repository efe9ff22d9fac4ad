"""What an export says of itself: pipeline.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoint import sha256, write_json
from ...models.npu import Part
from ...runtime.rknn.manifest import NAME, SCHEMA_VERSION, PartFile, Recipe, described
from .build import Built
from .job import Job, ports


def write_words(
    job: Job,
    stage: Path,
    version: str,
    parts: Mapping[str, Built],
    picture: Mapping[str, float | None],
    sources: list[dict[str, Any]],
) -> None:
    """Writes pipeline.json into a folder.

    Args:
        version: of the toolkit. parts: those of the NPU, by name. sources: files that the pipeline came in.
    """
    graphs = {name: [_words(part, parts.get(part.name), stage) for part in found] for name, found in job.graphs.items()}
    content = {
        "schema_version": SCHEMA_VERSION,
        "family": job.model.family.pipeline,
        "target": job.settings.target,
        "toolkit": version,
        "size": list(job.size),
        "tokens": job.settings.tokens,
        "tile": job.host.tiling.tile if job.host.tiling else None,
        "settings": job.settings.model_dump(mode="json"),
        "graphs": graphs,
        "host": job.model.configs(),
        "picture": picture,
        "verified_on_a_board": False,
        "sources": sources,
    }
    write_json(content, stage / NAME)


def _words(part: Part, built: Built | None, stage: Path) -> dict[str, Any]:
    if built is None:
        said = described(PartFile(part.name, ports(part), "cpu", Recipe({})))
        return said | {"status": "not simulated: it runs on the CPU"}
    said = described(PartFile(part.name, ports(part), "npu", built.recipe))
    file = stage / f"{part.name}.rknn"
    size = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    return said | size | built.measured.described() | built.described() | {"status": "simulated"}
