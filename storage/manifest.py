"""manifest.json: what an artifact was made from, what it consists of, and how accurate it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from .. import __version__
from .files import FileRecord, hash_file, write_json
from .layout import MANIFEST, MODEL, Artifact
from .published_model import MANIFEST_VERSION, corrupt_manifest, describe_validation_error, read_manifest_content

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")
RENAMED_KEYS = {
    "also": "extra_scheme_layers",
    "kept": "num_unquantized",
    "savings": "size_savings",
    "overflowing": "fp16_overflows",
}
RENAMED_LAYER_KEYS = {"kept": "stays_float"}


class LoraRecord(FileRecord):
    """A LoRA that was merged into the weights. Its path is the name of its file."""

    weight: float = Field(allow_inf_nan=False, description="The factor of what the LoRA adds.")
    config_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="The SHA-256 of PEFT's config beside it, if there is one."
    )

    def __str__(self) -> str:
        return f"{self.path}:{self.weight:g}"


class TuningRecord(BaseModel):
    """How what stays in floating point, and codes that may move, were trained to the reference's outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    samples: int = Field(description="Calls of the reference that were trained on.")
    prompts: int = Field(description="Number of their prompts.")
    validation_samples: int = Field(description="Calls of the reference, with other prompts, that judged.")
    validation_prompts: int = Field(description="Number of their prompts.")
    steps: int = Field(description="Steps that were taken.")
    best_step: int = Field(description="The step whose result was stored; 0: tuning brought nothing.")
    validation_before: float = Field(description="Mean squared error of the validation's outputs without tuning.")
    validation_after: float = Field(description="The same of what was stored.")
    parameters: int = Field(description="Number of values that were trained, codes that may move included.")


class ChoiceRecord(BaseModel):
    """Which variant of `best` was written: the simplest whose denoisers drift hardly more than those of others.

    `validated` has in each layer what was best on prompts that it was not solved on, `unclipped` the same without
    clipped ranges, `unscaled` without AWQ's scales too, and `gptq` GPTQ everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", defer_build=True)

    variant: str = Field(description="The variant.")
    drift: dict[str, float] = Field(
        description="The squared error of the denoisers' outputs relative to the reference's in dB, by variant, on "
        "calibration prompts that nothing was solved on; empty if there was no such prompt."
    )


class ReusedComponent(BaseModel):
    """A component that another artifact has quantized from the same weights, and that was taken from there."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    artifact_key: str = Field(description="The `key` of the other artifact.")
    component: str = Field(description="The name of the component there.")
    sha256: str = Field(description="A hash of the files of the component there.")


class LayerAllocation(BaseModel):
    """The format that a linear got from a budget, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    layer: str = Field(description="The linear, `component.module`.")
    format: str = Field(description="`g128`, `g64` or `g32` for 4 bits in such groups, `int8`, or `float`.")
    weights: int = Field(description="Number of its weights.")
    size: int = Field(description="Bytes that it takes.")
    drifts: dict[str, float] = Field(
        description="The squared error of the denoisers' outputs, relative to the reference's, that each format of "
        "this linear was expected to cause."
    )


class AllocationRecord(BaseModel):
    """How a budget was distributed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", defer_build=True)

    choice: str = Field(description="`mixed`, or the format of all linears where that drifted less.")
    limit: int = Field(description="Bytes that the quantized linears may take.")
    size: int = Field(description="Bytes that they take.")
    images: int = Field(description="Number of images that gradients were computed for.")
    expected_drift: float = Field(description="The sum of the expected drifts in dB.")
    drift: dict[str, float] = Field(
        description="The measured drift in dB of each distribution that was compared, on calibration prompts that "
        "nothing was solved on; empty if there was no such prompt."
    )
    layers: list[LayerAllocation] = Field(description="The format of each linear.")


class Manifest(BaseModel):
    """The content of manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", defer_build=True)

    schema_version: int = Field(default=MANIFEST_VERSION, ge=1, description="The version of this schema.")
    device: str = Field(pattern=r"\S", description="The device that the recipe is for.")
    gpu: str | None = Field(
        default=None,
        description="The GPU that the weights were quantized on; absent if it was the processor.",
    )
    key: str = Field(description="A hash of everything that the quantized weights depend on.")
    source: str = Field(description="The original pipeline: `demo`, a hub id, or the name of its folder.")
    recipe: dict[str, Any] = Field(description="The recipe with all its defaults.")
    prompts_sha256: str = Field(description="A hash of the calibration prompts.")
    sources: list[FileRecord] = Field(description="The files of the original pipeline.")
    loras: list[LoraRecord] = Field(
        default=[], description="The LoRAs that were merged into the original weights, in this order."
    )
    files: list[FileRecord] = Field(description="The files of the quantized pipeline, in `model`.")
    layers: list[dict[str, Any]] = Field(
        description="The output error of each quantized linear layer: with plain rounding and after each step."
    )
    extra_scheme_layers: dict[str, list[dict[str, Any]]] = Field(
        default={}, description="The same as `layers` for each extra scheme, by its name."
    )
    num_unquantized: int = Field(description="Number of linear layers in quantized components that stay in 16 bits.")
    sizes: dict[str, dict[str, int]] = Field(description="Bytes of each component, `before` and `after` quantization.")
    size_savings: dict[str, dict[str, int]] = Field(
        description="Bytes that each measure saved, by component and measure."
    )
    fp16_overflows: list[str] = Field(
        description="Activations that exceed the range of float16; only looked for if the recipe sets `fp16_safe`."
    )
    choice: ChoiceRecord | None = Field(
        default=None, description="With `best`, the variant that was written; otherwise absent or null."
    )
    allocation: AllocationRecord | None = Field(
        default=None, description="With a budget, the format of each linear; otherwise absent or null."
    )
    tuning: dict[str, dict[str, TuningRecord]] = Field(
        default={}, description="How each component was tuned, by component and scheme; `model` is the primary one."
    )
    reused: dict[str, ReusedComponent] = Field(
        default={}, description="Components that were taken from other artifacts, by name."
    )
    versions: dict[str, str] = Field(description="The versions of edgepress and of the libraries.")

    @model_serializer(mode="wrap")
    def _leave_out_processor(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if key != "gpu" or value}


def library_versions() -> dict[str, str]:
    """The versions of edgepress and of the libraries that take part in quantizing and generating."""
    return {"edgepress": __version__} | {library: _installed_version(library) for library in LIBRARIES}


@cache
def _installed_version(library: str) -> str:
    return version(library)


def write_manifest(manifest: Manifest, artifact: Path) -> None:
    """Writes the manifest of an artifact folder."""
    write_json(manifest.model_dump(mode="json"), Artifact(artifact).manifest)


def hash_published_model(artifact: Artifact, manifest: Manifest) -> dict[str, str]:
    """Returns what SHA256SUMS lists of a model: the SHA-256 of its files, and of its manifest, by path."""
    model = {f"{MODEL}/{file.path}": file.sha256 for file in manifest.files}
    return model | {MANIFEST: hash_file(artifact.manifest)}


def read_manifest(artifact: Path) -> Manifest | None:
    """Reads the manifest of an artifact folder; manifests of earlier releases are read as well.

    Returns:
        None if there is none.

    Raises:
        UserError: The manifest is corrupt, or of a newer version.
    """
    path = Artifact(artifact).manifest
    content = read_manifest_content(path)
    if content is None:
        return None
    try:
        return Manifest.model_validate(_upgrade(content))
    except ValidationError as error:
        raise corrupt_manifest(path, describe_validation_error(error)) from error


def _upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the keys of earlier releases."""
    if content.get("schema_version") == MANIFEST_VERSION:  # which has had them all since it began
        return dict(content)
    from ..recipes.deprecation import upgrade_settings  # slow to import

    upgraded = {RENAMED_KEYS.get(key, key): value for key, value in content.items()}
    if isinstance(upgraded.get("recipe"), Mapping):
        upgraded["recipe"] = upgrade_settings(upgraded["recipe"])
    upgraded["layers"] = _upgrade_layers(upgraded.get("layers"))
    if isinstance(extra := upgraded.get("extra_scheme_layers"), Mapping):
        upgraded["extra_scheme_layers"] = {name: _upgrade_layers(layers) for name, layers in extra.items()}
    return upgraded


def _upgrade_layers(layers: Any) -> Any:
    """The statistics of layers with the keys and the steps of this release."""
    if not isinstance(layers, list):
        return layers
    return [
        {
            RENAMED_LAYER_KEYS.get(key, key): _upgrade_steps(value) if key == "steps" else value
            for key, value in layer.items()
        }
        if isinstance(layer, Mapping)
        else layer
        for layer in layers
    ]


def _upgrade_steps(steps: Any) -> Any:
    from ..recipes.schema import QuantizationSettings

    return (
        {QuantizationSettings.RENAMED_VALUES["steps"].get(step, step): error for step, error in steps.items()}
        if isinstance(steps, Mapping)
        else steps
    )
