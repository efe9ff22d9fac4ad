"""The presets and threads of a recipe as an export records them."""

from __future__ import annotations

from ...recipes.execution import RuntimeSettings
from ...recipes.presets import Presets
from ...storage.pipeline_config import PresetConfig, RuntimeConfig


def describe_presets(presets: Presets, has_fixed_size: bool = False) -> dict[str, PresetConfig]:
    """Describes presets for pipeline.json, by name.

    Args:
        presets: The recipe's.
        has_fixed_size: Whether the export generates images of one size only, so that presets differ in the rest.
    """
    return {
        name: PresetConfig(
            steps=preset.steps,
            size=None if has_fixed_size or preset.size == "native" else preset.size,
            guidance=preset.guidance,
        )
        for name, preset in presets
    }


def describe_runtime(runtime: RuntimeSettings) -> RuntimeConfig:
    """Describes how graphs run on the device's CPU for pipeline.json."""
    return RuntimeConfig(threads=runtime.threads, cores=runtime.cores)
