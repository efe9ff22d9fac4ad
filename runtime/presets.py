"""Presets of an artifact: settings to generate images with, by the names that its recipe gave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..storage.pipeline_config import PresetConfig, read_export_config
from .verification import find_export_folder


def load_presets(artifact: Path) -> Mapping[str, PresetConfig]:
    """Loads the presets of an artifact, by name; empty if an earlier release exported it.

    Args:
        artifact: Folder of the artifact, or of its graphs.

    Raises:
        UserError: Nothing was exported, or its pipeline.json is corrupt.
    """
    return read_export_config(find_export_folder(artifact)).presets
