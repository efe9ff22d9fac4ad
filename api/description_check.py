"""Compares the description of an artifact, artifact.json and its documents, with SHA256SUMS and with what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..common.errors import UserError
from ..common.json_difference import find_difference
from ..storage.artifact_schema import ArtifactDescription, read_description
from ..storage.checksums import read_checksums
from ..storage.files import FileRecord, digest_files
from ..storage.hash_memory import HashMemory
from ..storage.integrity import FileProblem, FileStatus, find_problems
from ..storage.layout import (
    CHECKSUMS_NAME,
    DESCRIPTION_NAME,
    DOCUMENT_NAMES,
    MODEL,
    ONNX,
    RKNN,
    WEIGHT_EXPORTS,
    Artifact,
    is_weight_export,
)
from ..storage.manifest import read_manifest
from ..storage.pipeline_config import read_onnx_config, read_rknn_config
from ..storage.weight_export import read_weight_export
from .description import build_description

# What follows from more than the published files: the release, options, later results, or a plan, which needs torch.
UNCOMPARED = {"schema_version", "device", "source", "versions", "memory_plan", "evaluation", "benchmark", "documents"}
AGAIN = "Run 'edgepress describe' again."


def find_description_problems(artifact: Artifact, hashes: HashMemory) -> Iterator[FileProblem]:
    """Finds what is wrong with the description of an artifact; nothing if it has none.

    Args:
        artifact: The artifact.
        hashes: Computes hashes.
    """
    try:
        listed = read_checksums(artifact.path) or {}
    except UserError:  # which is a problem of its own
        listed = {}
    present = [name for name in DOCUMENT_NAMES if (artifact.path / name).is_file()]
    names = [name for name in DOCUMENT_NAMES if name in listed or (name in present and DESCRIPTION_NAME in present)]
    if listed and not any(name in listed for name in present) and DESCRIPTION_NAME in present:
        reason = f"describes an earlier model: {CHECKSUMS_NAME} lists another one now. {AGAIN}"
        yield FileProblem(DESCRIPTION_NAME, FileStatus.STALE, reason.removesuffix("."))
        return
    records = [
        FileRecord(path=name, bytes=(artifact.path / name).stat().st_size, sha256=listed.get(name, "0" * 64))
        for name in names
        if name in present
    ]
    problems = list(find_problems(artifact.path, records, hashes))
    problems += [FileProblem(name, FileStatus.MISSING, "is missing") for name in names if name not in present]
    yield from problems
    if DESCRIPTION_NAME in present and not problems:
        yield from _find_outdated_parts(artifact)


def list_absent_parts(artifact: Artifact) -> list[str]:
    """The folders that an intact description names, that are not there, and that are not needed to generate images.

    A board has graphs, and no weights for PyTorch.

    Args:
        artifact: The artifact.
    """
    if not artifact.description.is_file() or not (artifact.has_onnx or artifact.has_rknn):
        return []
    described = _list_digests(read_description(artifact))
    return [name for name in (MODEL, *WEIGHT_EXPORTS) if name in described and not (artifact.path / name).exists()]


def _find_outdated_parts(artifact: Artifact) -> Iterator[FileProblem]:
    try:
        description = read_description(artifact)
        current = _digest_parts(artifact)
    except UserError as error:
        document = str(artifact.description)
        reason = (
            str(error).removeprefix(f"{document} ")
            if str(error).startswith(document)
            else f"cannot be compared: {error}"
        )
        yield FileProblem(DESCRIPTION_NAME, FileStatus.CORRUPT, reason.removesuffix("."))
        return
    absent = list_absent_parts(artifact)
    described = {name: digest for name, digest in _list_digests(description).items() if name not in absent}
    if described != current:
        names = sorted(name for name in {*described, *current} if described.get(name) != current.get(name))
        reason = f"describes other files than are there now in {', '.join(names)}. {AGAIN}"
        yield FileProblem(DESCRIPTION_NAME, FileStatus.STALE, reason.removesuffix("."))
    elif not absent and (difference := _find_difference(description, artifact)):
        reason = f"does not describe what is there now: {difference.removesuffix('.')}. {AGAIN}"
        yield FileProblem(DESCRIPTION_NAME, FileStatus.STALE, reason.removesuffix("."))


def _find_difference(description: ArtifactDescription, artifact: Artifact) -> str:
    """The first entry that does not follow from the artifact's files; results may have been added since."""
    try:
        expected = build_description(artifact, has_plan=False)
    except UserError as error:
        return str(error)
    statuses = () if description.benchmark == expected.benchmark else ("status", "reason")
    return find_difference(
        description.model_dump(exclude=UNCOMPARED), expected.model_dump(exclude=UNCOMPARED), "", statuses
    )


def _list_digests(description: ArtifactDescription) -> dict[str, str]:
    return {name: part.sha256 for name, part in description.components.items() if part.sha256}


def _digest_parts(artifact: Artifact) -> dict[str, str]:
    """The digests of the folders, from what they record of their files."""
    manifest = read_manifest(artifact.path) if artifact.has_model else None
    files: dict[str, Sequence[FileRecord]] = {
        MODEL: manifest.files if manifest else [],
        ONNX: read_onnx_config(artifact.onnx).files if artifact.has_onnx else [],
        RKNN: read_rknn_config(artifact.rknn).files if artifact.has_rknn else [],
    }
    for name in WEIGHT_EXPORTS:
        if is_weight_export(artifact.path / name):
            files[name] = read_weight_export(artifact.path / name).files
    return {name: digest_files(list(records)) for name, records in files.items() if records}
