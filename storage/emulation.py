"""bench/emulation.json: how exported graphs computed on an emulated processor, beside where they were exported."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from .files import read_json_object, write_json
from .layout import Artifact
from .outdated_results import digest_published
from .published_model import describe_validation_error

EMULATION_RESULTS = "emulation.json"


class EmulationModel(BaseModel):
    """An immutable part of emulation.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EmulatedGraph(EmulationModel):
    """A graph that ran on its golden inputs."""

    relative_error: float = Field(description="The largest error over the largest value of torch's output.")
    limit: float = Field(description="The error that is accepted on such a processor.")


class EmulationResults(EmulationModel):
    """The content of emulation.json."""

    processor: str = Field(description="The processor as the emulator calls it, such as `cortex-a76`.")
    engine: str = Field(description="What ran the graphs, with its version.")
    onnx_sha256: str = Field(description="Digest of the export that ran.")
    graphs: dict[str, EmulatedGraph] = Field(description="The graphs by name.")
    image_psnr: tuple[float | None, ...] = Field(
        description="PSNR in dB of images against those of the machine that emulated; null: identical."
    )

    @property
    def passed(self) -> bool:
        """Whether every graph is within its limit."""
        return all(graph.relative_error <= graph.limit for graph in self.graphs.values())


def write_emulation(results: EmulationResults, artifact: Artifact) -> None:
    """Writes emulation.json into an artifact."""
    artifact.bench.mkdir(exist_ok=True)
    write_json(results.model_dump(mode="json"), artifact.bench / EMULATION_RESULTS)


def read_emulation(artifact: Artifact) -> EmulationResults | None:
    """Reads emulation.json; None if there is none, or if another export ran.

    Raises:
        UserError: It is damaged.
    """
    file: Path = artifact.bench / EMULATION_RESULTS
    if not file.exists():
        return None
    try:
        results = EmulationResults.model_validate(read_json_object(file))
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise UserError(f"{file} is damaged: {reason}. Emulate the artifact again, or remove the file.") from error
    return results if results.onnx_sha256 == digest_published(artifact.onnx) else None
