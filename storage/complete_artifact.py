"""Checks that everything which an artifact records is there, by sizes and headers; only small files are read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..common.errors import UserError
from .files import FileRecord, hash_file
from .integrity import FileProblem, FileStatus, find_added_files, find_problems
from .layout import (
    CHECKSUMS_NAME,
    CONFIG_NAME,
    ENGINES_FOLDER,
    MANIFEST,
    MODEL,
    ONNX,
    PUBLISHED,
    WEIGHT_EXPORT_NAME,
    WEIGHT_EXPORTS,
    Artifact,
    is_export,
    is_of_another_program,
    is_pipeline,
    is_weight_export,
)
from .pipeline_config import read_export_config
from .provenance import list_required_files
from .published_model import read_published_model
from .weight_export import read_weight_export

MAX_HASHED_BYTES = 100_000  # of a file whose SHA-256 is compared as well: a moment for all configs together


def find_incomplete_files(artifact: Artifact) -> Iterator[FileProblem]:
    """Compares the model and the exports of an artifact with what was recorded of them, as far as a moment suffices.

    Yields:
        Each file that is missing, added, or differs in its size, its header or, if it is small, its SHA-256. Its path
        is relative to the artifact.

    Raises:
        UserError: The file that records them is corrupt, or of a newer version.
    """
    for name in PUBLISHED:
        yield from find_incomplete_folder(artifact.path / name)


def find_incomplete_folder(folder: Path) -> Iterator[FileProblem]:
    """Does the same for one folder of an artifact, such as `model` or `onnx`; paths begin with its name.

    Raises:
        UserError: The file that records its files is corrupt, or of a newer version.
    """
    name = folder.name
    if not folder.is_dir():
        return
    if name == MODEL:
        yield from _compare_model(folder)
    elif is_export(folder):
        files = list_required_files(folder, read_export_config(folder).recorded_files)
        yield from _compare(folder, files, CONFIG_NAME)
    elif is_weight_export(folder):
        yield from _compare(folder, read_weight_export(folder).files, WEIGHT_EXPORT_NAME)
    else:
        yield from _find_missing_description(folder)


def require_complete(artifact: Artifact) -> None:
    """Checks the files of the model and of the exports; what was added is nobody's harm.

    Raises:
        UserError: A file is missing, or differs in what can be seen in a moment.
    """
    remedy = f"'edgepress verify {artifact.path}' lists what is wrong; copy the artifact again, or make it again."
    for problem in find_incomplete_files(artifact):
        if problem.status is not FileStatus.ADDED:
            raise UserError(f"{artifact.path / problem.path} {problem.reason}. {remedy}")


def _compare_model(folder: Path) -> Iterator[FileProblem]:
    artifact = Artifact.containing(folder)
    model = read_published_model(artifact)
    if model is None and is_pipeline(folder):
        reason = f"is missing, so nothing says what {MODEL} should hold"
        yield FileProblem(MANIFEST, FileStatus.MISSING, reason)
    elif model is not None:
        yield from _compare(folder, model.files)


def _find_missing_description(folder: Path) -> Iterator[FileProblem]:
    """Finds that the file is missing which says what a folder of an artifact holds, unless the folder is another's."""
    name = WEIGHT_EXPORT_NAME if folder.name in WEIGHT_EXPORTS else CONFIG_NAME
    if (folder / name).exists() and is_of_another_program(folder / name):
        return
    if (folder / CHECKSUMS_NAME).exists():
        reason = "is missing, so nothing says what the folder should hold"
        yield FileProblem(f"{folder.name}/{name}", FileStatus.MISSING, reason)


def _compare(folder: Path, files: Sequence[FileRecord], description: str = "") -> Iterator[FileProblem]:
    if not files:  # an earlier release recorded none
        return
    problems = list(find_problems(folder, files))
    damaged = {problem.path for problem in problems}
    for file in files:
        is_small = file.bytes <= MAX_HASHED_BYTES and file.path not in damaged
        if is_small and hash_file(folder / file.path) != file.sha256:
            problems.append(FileProblem(file.path, FileStatus.CHANGED, "was changed: it has another SHA-256"))
    described = (description, CHECKSUMS_NAME) if description else ()
    ignored = (ENGINES_FOLDER,) if folder.name == ONNX else ()
    problems += find_added_files(folder, {*described, *(file.path for file in files)}, ignored)
    yield from (replace(problem, path=f"{folder.name}/{problem.path}") for problem in problems)
