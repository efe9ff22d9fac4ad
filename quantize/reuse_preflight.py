"""Checks from manifests and sizes whether other artifacts have a text encoder to reuse, before any hash is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..models.base.family import Family
from ..recipes.loader import validate_settings
from ..recipes.schema import QuantizationSettings
from ..storage.files import FileRecord
from ..storage.layout import Artifact
from ..storage.manifest import Manifest, read_manifest

WEIGHT_SUFFIX = ".safetensors"
# What of the section `quantize` decides nothing about a component that is quantized.
IRRELEVANT = {"components", "tune"}


def check_reuse(settings: QuantizationSettings, artifacts: Sequence[Path], source: Path, family: Family) -> None:
    """Checks that artifacts are such whose text encoders can be reused, as far as no file must be hashed.

    Args:
        settings: The recipe's section `quantize`.
        artifacts: The other artifacts.
        source: The pipeline's folder.
        family: Its family.

    Raises:
        UserError: One is no artifact, was quantized with other settings, or has no text encoder of such a size.
    """
    if artifacts and settings.budget is not None:
        raise UserError(
            "quantize.budget distributes bytes over all components, so none can be reused as it is. Leave out --reuse, "
            "or quantize without a budget."
        )
    encoders = [component.name for component in family.components if component.role == "text_encoder"]
    for path in artifacts:
        manifest = read_manifest(path)
        if manifest is None or not Artifact(path).has_model:
            raise UserError(f"{path} is no artifact with a quantized model, so nothing can be reused. Check --reuse.")
        _check_settings(path, manifest, settings)
        if not any(_has_same_sizes(source / name, manifest) for name in encoders):
            raise reject_other_weights(path, source)


def reject_other_weights(artifact: Path, source: Path) -> UserError:
    """The error for an artifact without a text encoder of the same weights."""
    return UserError(
        f"{artifact} has no text encoder that was quantized from the same weights as one of {source}: no SHA-256 is "
        "the same. Leave out --reuse."
    )


def list_quantized_components(manifest: Manifest) -> list[str]:
    """The components that an artifact has quantized, sorted."""
    return sorted({layer["layer"].partition(".")[0] for layer in manifest.layers})


def list_weights(component: str, files: Iterable[FileRecord]) -> list[FileRecord]:
    """The files of a component's weights."""
    return [file for file in files if file.path.startswith(f"{component}/") and file.path.endswith(WEIGHT_SUFFIX)]


def _has_same_sizes(folder: Path, manifest: Manifest) -> bool:
    """Whether a quantized component of an artifact was made from files of the same sizes as those in a folder."""
    sizes = {file.stat().st_size for file in folder.glob(f"*{WEIGHT_SUFFIX}")}
    recorded = ({file.bytes for file in list_weights(n, manifest.sources)} for n in list_quantized_components(manifest))
    return any(bool(weights) and weights <= sizes for weights in recorded)


def _check_settings(path: Path, manifest: Manifest, settings: QuantizationSettings) -> None:
    recorded = validate_settings(QuantizationSettings, manifest.recipe.get("quantize", {}))
    expected, actual = _describe(settings), _describe(recorded)
    different = [key for key in expected if expected[key] != actual[key]]
    if manifest.loras:
        different.append("loras")
    if recorded.chooses_steps or settings.chooses_steps or settings.tune != "off":
        raise UserError(
            f"A text encoder of {path} cannot be reused with the method 'best' or with tuning, which depend on the "
            "whole pipeline. Choose another --method, or leave out --reuse."
        )
    if different:
        raise UserError(
            f"The text encoders of {path} were quantized with other settings (quantize.{different[0]}). Quantize with "
            "the same recipe, or leave out --reuse."
        )


def _describe(settings: QuantizationSettings) -> Mapping[str, Any]:
    return settings.model_dump(mode="json", exclude={"method", *IRRELEVANT}) | {"steps": list(settings.resolved_steps)}
