"""What manifest.json says about the files of the quantized pipeline: all that loading an export needs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError, summarize_error
from ..common.regular_files import read_regular_text
from ..common.validation import explain_value
from .checksums import read_checksums, require_checksum
from .files import FileRecord, digest_files
from .layout import Artifact, is_of_another_program
from .strict_json import parse_strict_json

MANIFEST_VERSION = 3
REPLACE_ADVICE = "Replace the artifact with 'edgepress quantize --force'."
CHECKSUMS_SINCE = 3  # the first version with SHA256SUMS beside it


class PublishedModel(BaseModel):
    """The files of the quantized pipeline in `model`, and those of the pipeline that it was made from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: tuple[FileRecord, ...] = Field(description="The files of `model`.")
    sources: tuple[FileRecord, ...] = Field(description="The files of the original pipeline.")

    @property
    def sha256(self) -> str:
        """The digest of `model` that an export of it records."""
        return digest_files(self.files)


def read_published_model(artifact: Artifact) -> PublishedModel | None:
    """Reads the manifest of an artifact in part.

    Returns:
        None if there is no manifest.

    Raises:
        UserError: The manifest is corrupt, or of a newer version.
    """
    content = read_manifest_content(artifact.manifest)
    try:
        return None if content is None else PublishedModel.model_validate(content)
    except ValidationError as error:
        raise corrupt_manifest(artifact.manifest, describe_validation_error(error)) from error


def read_manifest_content(file: Path) -> dict[str, Any] | None:
    """Reads a manifest as a JSON object.

    Returns:
        None if the file does not exist, or is another program's.

    Raises:
        UserError: It is corrupt, or of a newer version.
    """
    if is_of_another_program(file):
        return None
    try:
        content = parse_strict_json(read_regular_text(file))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise corrupt_manifest(file, "it is not UTF-8") from error
    except (OSError, ValueError) as error:
        raise corrupt_manifest(file, summarize_error(error)) from error
    version = content.get("schema_version")
    _require_readable(file, version)
    is_required = type(version) is int and version >= CHECKSUMS_SINCE
    require_checksum(file, read_checksums(file.parent), REPLACE_ADVICE, is_required=is_required)
    return content


def _require_readable(file: Path, version: object) -> None:
    if type(version) is int and version > MANIFEST_VERSION:
        raise UserError(
            f"{file} has schema version {version}, but this edgepress reads version {MANIFEST_VERSION}: a newer "
            "edgepress wrote it. Upgrade edgepress."
        )


def corrupt_manifest(file: Path, reason: str) -> UserError:
    """The error for a manifest that cannot be used."""
    return UserError(f"{file} is not a valid manifest: {reason}. {REPLACE_ADVICE}")


def describe_validation_error(error: ValidationError) -> str:
    """Names the first key of a JSON file that is wrong, and says why."""
    return explain_value(error.errors()[0])
