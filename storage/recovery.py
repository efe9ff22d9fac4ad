"""What to do about a damaged file of a pipeline: that depends on whether it was downloaded or made by edgepress."""

from __future__ import annotations

import os
from pathlib import Path

from .layout import (
    BENCH_RESULTS,
    DESCRIPTION_NAME,
    EVALUATION_RESULTS,
    MODEL,
    SBOM_NAME,
    Artifact,
    is_export,
    is_written_by_edgepress,
)

DOWNLOAD_AGAIN = "Download the model again."
BATCH = "batch.json"  # beside images of a file of prompts
COMMANDS = {  # that write files beside the weights
    BENCH_RESULTS: "bench",
    EVALUATION_RESULTS: "evaluate",
    DESCRIPTION_NAME: "describe",
    SBOM_NAME: "describe",
}


def advise_recovery(path: Path) -> str:
    """A sentence that says how to get a sound copy.

    Args:
        path: The file or folder that is missing or damaged, or one that it is in.
    """
    artifact = _find_artifact(path)
    if path.name == BATCH:
        return "Remove it, and generate the images again in another folder."
    if artifact is None and path.name in COMMANDS:
        return f"Run 'edgepress {COMMANDS[path.name]}' again."
    if artifact is None:
        return DOWNLOAD_AGAIN
    return f"Make {artifact} again, or copy it again as a whole: 'edgepress verify {artifact}' lists what is wrong."


def _find_artifact(path: Path) -> Path | None:
    """The artifact whose `model`, `onnx` or `rknn` a path is in; None if it is in none."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would leave the artifact where a file is a link
    for folder in (absolute, *absolute.parents):
        artifact = Artifact.containing(folder)
        if is_export(folder) or (folder.name == MODEL and is_written_by_edgepress(artifact.manifest)):
            return artifact.path
    return None
