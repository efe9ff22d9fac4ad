"""Finds results in an artifact that were measured of other files than those that it has now."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .files import FileRecord, digest_files, record_file
from .layout import BENCH_RESULTS, CHECKSUMS_NAME, CONFIG_NAME, EVALUATION_RESULTS, GENERATORS, Artifact, is_export
from .pipeline_config import read_export_config
from .provenance import list_required_files, read_recorded_files
from .strict_json import parse_strict_json

Schema = TypeVar("Schema", bound="_Measured")


class _Measured(BaseModel):
    """A part of a file of results. Its other keys belong to the stages that write it."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class _Folder(_Measured):
    path: str = Field(description="The folder that was measured.")
    sha256: str = Field(description="The digest of its files.")


class _System(_Measured):
    folder: _Folder


class _Identity(_Measured):
    variants: dict[str, _System]


class _Evaluation(_Measured):
    identity: _Identity


class _Bench(_Measured):
    artifact_sha256: str | None = None


def find_outdated_results(artifact: Artifact) -> list[Path]:
    """Finds files of results whose digests are not those of the artifact's folders.

    No weight is read: digests of published folders follow from what was recorded of their files.

    Raises:
        UserError: What a folder records of its files is corrupt, or of a newer version.
    """
    digests = {name: digest for name in GENERATORS if (digest := digest_published(artifact.path / name))}
    evaluations = sorted(artifact.evaluation.glob(f"**/{EVALUATION_RESULTS}"))
    outdated = [file for file in evaluations if _is_outdated_evaluation(file, artifact, digests)]
    benches = sorted(artifact.bench.glob(f"**/{BENCH_RESULTS}"))
    exports = {digest_published(folder) for folder in (artifact.onnx, artifact.rknn) if benches and is_export(folder)}
    for file in benches:
        measured = _read(file, _Bench)
        if measured is not None and measured.artifact_sha256 is not None:
            outdated += [] if exports & {None, measured.artifact_sha256} else [file]  # None: an earlier release made it
    return outdated


def digest_published(folder: Path) -> str | None:
    """The digest of a published folder from the records of its files; None if it has none, or not of all files.

    Raises:
        UserError: What records them is corrupt, or of a newer version.
    """
    if not is_export(folder):
        files = list(read_recorded_files(folder))
        return digest_files(sorted(files, key=_get_path)) if files else None
    recorded = read_export_config(folder).files
    if not recorded:
        return None
    files = list_required_files(folder, recorded)
    files += [record_file(folder, name) for name in (CONFIG_NAME, CHECKSUMS_NAME)]
    return digest_files(sorted(files, key=_get_path))


def _get_path(file: FileRecord) -> str:
    return file.path


def _is_outdated_evaluation(file: Path, artifact: Artifact, digests: dict[str, str]) -> bool:
    """Whether it measured earlier files of the artifact, or none of its folders at all.

    Folders that were measured are the artifact's if they are in one of its name, or one of them equals its own: it may
    have been renamed or copied since. Others, which it was compared with, may differ.
    """
    results = _read(file, _Evaluation)
    folders = [system.folder for system in results.identity.variants.values()] if results else []
    measured = [(Path(folder.path), folder.sha256) for folder in folders if Path(folder.path).name in digests]
    homes = {path.parent for path, digest in measured if digest == digests[path.name]}
    differing = {path.parent for path, digest in measured if digest != digests[path.name]}
    homes |= {home for home in differing if home.name == artifact.path.absolute().name}
    return bool(measured) and (not homes or bool(homes & differing))


def _read(file: Path, schema: type[Schema]) -> Schema | None:
    """Reads a file of results in part; None if there is none, or it is of another form: reading it whole says why."""
    try:
        return schema.model_validate(parse_strict_json(file.read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
