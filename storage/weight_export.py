"""export.json: what a folder of weights for other programs says of itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from .checksums import read_checksums, require_checksum, write_checksums
from .files import FileRecord, list_files, read_json_object, record_file, write_json
from .layout import CHECKSUMS_NAME, WEIGHT_EXPORT_NAME, locate_folder
from .published_model import describe_validation_error

SCHEMA_VERSION = 1


class ComponentRecord(BaseModel):
    """The weights of a component as they were exported."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    weights: int = Field(description="Number of weights, those of blocks without use included.")
    bytes: int = Field(description="Bytes of its tensors.")
    types: dict[str, int] = Field(description="Number of tensors of each type, as the format calls it.")
    max_difference: float = Field(
        description="The largest difference of a 4- or 8-bit weight from that of the artifact, in steps between codes; "
        "0 if all are equal."
    )

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return 8 * self.bytes / self.weights if self.weights else 0.0


class WeightExport(BaseModel):
    """The content of export.json."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    schema_version: int = Field(default=SCHEMA_VERSION, description="The version of this schema.")
    format: str = Field(description="What `edgepress export` calls the format.")
    family: str = Field(description="The class of the diffusers pipeline.")
    model_sha256: str = Field(
        description="Digest of the files of `model` in the same artifact; empty if another pipeline was exported."
    )
    components: dict[str, ComponentRecord] = Field(description="The exported components.")
    versions: dict[str, str] = Field(description="Versions of edgepress and of the packages that wrote the files.")
    files: tuple[FileRecord, ...] = Field(default=(), description="All files but this one and SHA256SUMS.")


def write_weight_export(export: WeightExport, folder: Path) -> WeightExport:
    """Completes an export: records all of its files in export.json, and writes that and SHA256SUMS.

    Args:
        export: What the export says of itself.
        folder: The folder of the export, with all other files.

    Returns:
        The same with the records of the files.
    """
    names = [name for name in list_files(folder) if name not in (WEIGHT_EXPORT_NAME, CHECKSUMS_NAME)]
    complete = export.model_copy(update={"files": tuple(record_file(folder, name) for name in names)})
    write_json(complete.model_dump(mode="json"), folder / WEIGHT_EXPORT_NAME)
    write_checksums([*complete.files, record_file(folder, WEIGHT_EXPORT_NAME)], folder)
    return complete


def read_weight_export(folder: Path) -> WeightExport:
    """Reads the export.json of an exported folder.

    Raises:
        UserError: It is missing, corrupt, or of a newer version.
    """
    path = folder / WEIGHT_EXPORT_NAME
    remedy = f"Run 'edgepress export {locate_folder(folder).name}' again."
    content = read_json_object(path)
    version = content.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, but this edgepress reads version {SCHEMA_VERSION}. "
            "Upgrade edgepress."
        )
    require_checksum(path, read_checksums(folder), remedy, is_required=True)
    try:
        return WeightExport.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} is corrupt: {describe_validation_error(error)}. {remedy}") from error
