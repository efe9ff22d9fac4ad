"""Checks that everything which an artifact records is there, by sizes and headers; no file is read whole."""

from __future__ import annotations

from .integrity import require_intact
from .layout import Artifact
from .manifest import read_manifest
from .pipeline_config import read_export_config


def require_complete(artifact: Artifact) -> None:
    """Checks the files of the model and of the exports.

    Raises:
        UserError: A file is missing, or differs in what can be seen without reading it whole.
    """
    remedy = f"'edgepress verify {artifact.path}' lists what is wrong; copy the artifact again, or make it again."
    manifest = read_manifest(artifact.path) if artifact.has_model else None
    if manifest is not None:
        require_intact(artifact.model, manifest.files, remedy)
    for folder, exists in ((artifact.onnx, artifact.has_onnx), (artifact.rknn, artifact.has_rknn)):
        if exists:
            require_intact(folder, read_export_config(folder).files, remedy)
