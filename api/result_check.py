"""Compares results of an artifact, and what is recorded of the machine that made it, with the hashes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..common.errors import UserError
from ..storage.checksums import read_checksums
from ..storage.files import hash_file
from ..storage.integrity import FileProblem, FileStatus
from ..storage.layout import CHECKSUMS_NAME, LOCAL_CHECKSUMS, Artifact


def find_changed_results(artifact: Artifact) -> Iterator[FileProblem]:
    """Finds files that are not as `evaluate`, `bench` or `quantize` wrote them.

    Results without a list of hashes, as earlier releases and runs that were killed leave them, are not compared.

    Args:
        artifact: The artifact.

    Yields:
        A problem of each file that is not as it is listed, and of each list that cannot be read.
    """
    yield from _compare(artifact, artifact.path, LOCAL_CHECKSUMS)
    for results in (artifact.evaluation, artifact.bench):
        for file in sorted(results.glob(f"**/{CHECKSUMS_NAME}")):
            yield from _compare(artifact, file.parent, CHECKSUMS_NAME)


def _compare(artifact: Artifact, folder: Path, list_name: str) -> Iterator[FileProblem]:
    parent = folder.relative_to(artifact.path)
    try:
        listed = read_checksums(folder, list_name) or {}
    except UserError as error:
        reason = str(error).removeprefix(f"{folder / list_name} ")
        yield FileProblem((parent / list_name).as_posix(), FileStatus.CORRUPT, reason)
        return
    for name, sha256 in listed.items():
        path = (parent / name).as_posix()
        if not (folder / name).is_file():
            yield FileProblem(path, FileStatus.MISSING, "is missing")
        elif hash_file(folder / name) != sha256:
            yield FileProblem(path, FileStatus.CHANGED, "was changed: it has another SHA-256")
