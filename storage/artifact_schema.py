"""artifact.json: what an artifact is as a whole, made from what its parts record. Its JSON Schema is shipped beside it.

`make docs-reference` writes the JSON Schema.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from ..common.errors import UserError
from .files import FileRecord, read_json_object
from .layout import Artifact
from .pipeline_config import PortConfig, PresetConfig
from .published_model import describe_validation_error

DESCRIPTION_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("artifact.schema.json")
Status = Literal["verified", "emulated", "simulated", "estimated", "refused"]


class DescriptionModel(BaseModel):
    """An immutable part of artifact.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceDescription(DescriptionModel):
    """The original pipeline."""

    model: str = Field(description="`demo`, a hub id, or the name of its folder.")
    revision: str | None = Field(description="Revision of the hub; null if it is not from there, or not known.")
    license: str | None = Field(description="Licence as the pipeline's own README.md states it, or as it was given.")


class GraphDescription(DescriptionModel):
    """A graph or part that a runtime loads."""

    inputs: tuple[PortConfig, ...] = Field(description="Inputs in order; empty if the export does not record them.")
    outputs: tuple[PortConfig, ...] = Field(description="Outputs in order; empty if the export does not record them.")
    relative_error: NonNegativeFloat | None = Field(
        description="How far it is from torch; null if it was not compared."
    )


class ComponentDescription(DescriptionModel):
    """A folder of the artifact: the quantized pipeline or an export."""

    status: Status = Field(
        description="`verified`: run on such a device and compared; `emulated`: run with its instructions in "
        "an emulator and compared; `simulated`: run elsewhere, with the same graphs or in a simulator; `estimated`: "
        "not run; `refused`: not made."
    )
    reason: str = Field(description="What the status rests on, or why it was refused.")
    precision: str = Field(description="Precision of its weights.")
    sha256: str | None = Field(description="Digest of its files; null if there are none.")
    bytes: NonNegativeInt = Field(description="Bytes of its files.")
    files: tuple[FileRecord, ...] = Field(description="Its files, relative to the artifact.")
    graphs: dict[str, GraphDescription] = Field(description="Its graphs by name.")


class QuantizationDescription(DescriptionModel):
    """How weights were quantized, with which calibration."""

    settings: dict[str, Any] = Field(description="The section `quantize` of the recipe.")
    calibration: dict[str, Any] = Field(description="The section `calibration` of the recipe.")
    prompts_sha256: str = Field(description="Digest of the calibration prompts.")
    loras: tuple[str, ...] = Field(description="LoRAs that were merged, as `NAME:WEIGHT`.")


class MemoryPlanDescription(DescriptionModel):
    """The plan of the exported graphs on the device. Everything is estimated."""

    verdict: str | None = Field(
        description="`fits`, `fits in phases` or `does not fit`; null where the recipe is for machines of any memory."
    )
    size: tuple[PositiveInt, PositiveInt] = Field(description="[height, width] of the image in pixels.")
    resident_bytes: NonNegativeInt = Field(description="Peak memory with all graphs loaded.")
    phased_bytes: NonNegativeInt = Field(description="Peak memory with one graph at a time.")
    usable_bytes: NonNegativeInt | None = Field(
        description="What a program can use on the device; null where the recipe is for machines of any memory."
    )
    graph_bytes: dict[str, NonNegativeInt] = Field(description="Weights and activations of each graph.")
    floor_seconds: NonNegativeFloat | None = Field(
        description="The least time of an image; null if rates are not known."
    )


class ScoreDescription(DescriptionModel):
    """The last evaluation."""

    verdict: str | None = Field(description="The verdict of all gates; null if there are none.")
    num_prompts: NonNegativeInt = Field(description="Number of prompts.")
    scores: dict[str, dict[str, FiniteFloat]] = Field(
        description="The mean of each score, against the reference or of the candidate's images, by candidate."
    )


class BenchDescription(DescriptionModel):
    """The last benchmark."""

    kind: Literal["measured", "simulated"] = Field(description="Whether the device ran, or a simulator of it.")
    machine: str = Field(description="Processor of the machine.")
    seconds_per_image: NonNegativeFloat = Field(description="Mean time of an image.")
    peak_bytes: NonNegativeInt = Field(description="Peak memory of the process.")


class ArtifactDescription(DescriptionModel):
    """The content of artifact.json."""

    schema_version: int = Field(default=DESCRIPTION_VERSION, ge=1, description="The version of this schema.")
    device: str = Field(description="The device that the recipe is for.")
    pipeline_class: str = Field(description="Class of the diffusers pipeline.")
    source: SourceDescription = Field(description="The original pipeline.")
    versions: dict[str, str] = Field(description="Versions of edgepress and of libraries.")
    components: dict[str, ComponentDescription] = Field(description="`model`, `onnx` and `rknn`.")
    quantization: QuantizationDescription | None = Field(description="Null if nothing was quantized.")
    presets: dict[str, PresetConfig] = Field(description="Settings to generate images with, by name.")
    memory_plan: MemoryPlanDescription | None = Field(description="Null if nothing is known of the device.")
    evaluation: ScoreDescription | None = Field(description="Null if there is none of these files.")
    benchmark: BenchDescription | None = Field(description="Null if there is none of these files.")
    documents: tuple[FileRecord, ...] = Field(description="Model card and bill of materials.")


def read_description(artifact: Artifact) -> ArtifactDescription:
    """Reads artifact.json.

    Raises:
        UserError: It cannot be read, is corrupt, or of a newer version.
    """
    content, file = read_json_object(artifact.description), artifact.description
    version = content.get("schema_version")
    if type(version) is int and version > DESCRIPTION_VERSION:
        raise UserError(
            f"{file} has schema version {version}, but this edgepress reads version {DESCRIPTION_VERSION}: a newer "
            "edgepress wrote it. Upgrade edgepress."
        )
    try:
        return ArtifactDescription.model_validate(content)
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise UserError(f"{file} is corrupt: {reason}. Run 'edgepress describe' again.") from error


def render_schema() -> str:
    """The JSON Schema of artifact.json."""
    schema = ArtifactDescription.model_json_schema()
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edgepress artifact"} | schema
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render_schema(), "utf-8")
