"""Proves that an artifact is as it was published: every file, its size, its header and its SHA-256, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common.arguments import check_arguments
from ..common.errors import UserError, escape_controls
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..common.text_table import align_rows
from ..storage.checksums import read_checksums
from ..storage.files import FileRecord, hash_file
from ..storage.hash_memory import HashMemory
from ..storage.integrity import FileProblem, FileStatus, find_added_files, find_problems
from ..storage.layout import (
    CHECKSUMS_NAME,
    CONFIG_NAME,
    DOCUMENT_NAMES,
    ENGINES_FOLDER,
    KIT,
    MANIFEST,
    MODEL,
    ONNX,
    PUBLISHED,
    RKNN,
    TOP_NAMES,
    WEIGHT_EXPORT_NAME,
    WEIGHT_EXPORTS,
    Artifact,
    is_export,
    is_pipeline,
    is_repository,
    is_weight_export,
)
from ..storage.links import find_links_out, is_hub_link
from ..storage.manifest import hash_published_model, read_manifest
from ..storage.outdated_results import find_outdated_results
from ..storage.pipeline_config import read_export_config
from ..storage.provenance import is_stale, list_required_files
from ..storage.published_model import CHECKSUMS_SINCE, PublishedModel, read_published_model
from ..storage.recognition import is_artifact, reject_path
from ..storage.weight_export import read_weight_export
from .description_check import find_description_problems, list_absent_parts
from .result_check import find_changed_results

REPOSITORY = "repository"  # what the report calls a published one
ADVICE = "Give an artifact that edgepress made, or one of its folders"


@dataclass(frozen=True)
class FolderReport:
    """The result for one published folder of an artifact.

    Attributes:
        name: `model`, `onnx`, `rknn`, that of a format of weights for other programs, or `repository`.
        files: Number of files that are recorded.
        nbytes: Their bytes.
        is_hashed: Whether hashes are recorded. Exports of earlier releases have none.
        links: Number of files that are links into the cache of the Hugging Face Hub, to what was published.
        problems: What is not as it was published; paths are relative to the artifact.
        has_no_goldens: Whether graphs were to be run, and the export holds no golden inputs.
    """

    name: str
    files: int = 0
    nbytes: int = 0
    is_hashed: bool = True
    links: int = 0
    problems: tuple[FileProblem, ...] = ()
    has_no_goldens: bool = False


@dataclass(frozen=True)
class VerificationReport:
    """The result of verifying an artifact. `print` shows it.

    Attributes:
        path: The artifact.
        folders: The result for each published folder.
        added: Files in the artifact's own folder that do not belong there, or are not as they were written, and links
            that leave it.
        outdated: Files of results that were measured of other files than those that are there now.
        absent: Folders that the artifact's description names, and that were not copied, such as `model` to a board.
    """

    path: Path
    folders: tuple[FolderReport, ...]
    added: tuple[FileProblem, ...] = ()
    outdated: tuple[Path, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[FileProblem, ...]:
        """All problems; paths are relative to the artifact."""
        return (*(problem for folder in self.folders for problem in folder.problems), *self.added)

    @property
    def passed(self) -> bool:
        """Whether everything is as it was published."""
        return not self.problems

    @property
    def notices(self) -> list[str]:
        """Sentences about what could not be checked, and what is no fault of the artifact."""
        unhashed = [folder.name for folder in self.folders if not folder.is_hashed]
        sentences = [
            f"{self.path / name} holds no hashes, since an earlier release exported it: only presence and headers were "
            "checked. Export it again to have it checked."
            for name in unhashed
        ]
        sentences += [
            f"Number of files of {self.path / folder.name} that are links into the Hub's cache, to what has the "
            f"recorded hash: {folder.links}."
            for folder in self.folders
            if folder.links
        ]
        sentences += [
            f"The graphs in {self.path / folder.name} were not run: the export holds no golden inputs."
            for folder in self.folders
            if folder.has_no_goldens
        ]
        sentences += [
            f"{self.path / name} is described and not there, and was not compared. Copy it if it should be there."
            for name in self.absent
        ]
        outdated = [f"{file} was measured of other files than are there now. Measure again." for file in self.outdated]
        return sentences + outdated

    def __str__(self) -> str:
        rows = [("folder", "files", "MB", "hashes", "problems")]
        for folder in self.folders:
            hashes = "checked" if folder.is_hashed else "none recorded"
            size = f"{folder.nbytes / 1e6:.2f}"
            rows.append((folder.name, str(folder.files), size, hashes, str(len(folder.problems) or "none")))
        lines = [f"Artifact {self.path}", *align_rows(rows, numbers={1, 2})]
        lines += [f"{problem.path}: {problem.status}: it {problem.reason}" for problem in self.problems]
        is_hashed = all(folder.is_hashed for folder in self.folders)
        verdict = "Verified: every file is as it was published." if is_hashed else "Verified as far as hashes go."
        if not self.passed:
            verdict = f"Failed: {len(self.problems)} of its files are not as they were published."
        return "\n".join(map(escape_controls, [*lines, *self.notices, verdict]))


@check_arguments
@requires_extra("runtime")
def verify(
    path: str | Path, *, run: bool = True, rehash: bool = False, progress: Progress = no_progress
) -> VerificationReport:
    """Compares an artifact with what was recorded when it was published.

    Hashes of files that were read before and have not changed since are remembered in the user's cache.

    Args:
        path: An artifact, one of its folders, such as `model` or `onnx`, or a repository that `publish` wrote.
        run: Whether to run the ONNX graphs on their golden inputs, where the export has some, and to compare their
            outputs with torch's.
        rehash: Whether to read files again whose hashes are remembered, as a disk that loses bits needs.
        progress: Called with a stage, what is done and the total.

    Returns:
        What is not as it was published. `print` shows it; `to_dict` of this module turns it into JSON.

    Raises:
        UserError: The folder is not an artifact.
    """
    if is_repository(Path(path)):
        with HashMemory(rehash) as hashes:
            listed = _verify_listed(Path(path), REPOSITORY, hashes, progress)
        return _add_links(VerificationReport(Path(path), (listed,)), Path(path))
    artifact, names = _locate(Path(path))
    with HashMemory(rehash) as hashes:
        folders = [_verify_folder(artifact, name, hashes, progress) for name in names]
        described = tuple(find_description_problems(artifact, hashes))
    if run and not any(folder.problems for folder in folders):
        folders = [_run_graphs(artifact, folder, progress) for folder in folders]
    report = VerificationReport(artifact.path, tuple(folders))
    if is_export(Path(path)) or is_weight_export(Path(path)) or is_pipeline(Path(path)):  # one folder of the artifact
        return _add_links(report, artifact.path / names[0], f"{names[0]}/")
    kit = artifact.path / KIT
    if kit.is_dir():
        with HashMemory(rehash) as hashes:
            report = replace(report, folders=(*folders, _verify_listed(kit, KIT, hashes, progress, f"{KIT}/")))
    outdated = () if report.problems else tuple(find_outdated_results(artifact))
    added = (*described, *_find_added_to_top(artifact), *find_changed_results(artifact))
    report = replace(report, added=added, outdated=outdated)
    report = _add_links(report, artifact.path)
    return report if report.problems else replace(report, absent=tuple(list_absent_parts(artifact)))


def to_dict(report: VerificationReport) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "artifact": str(report.path),
        "passed": report.passed,
        "folders": [
            {
                "name": folder.name,
                "files": folder.files,
                "bytes": folder.nbytes,
                "hashed": folder.is_hashed,
                "links": folder.links,
            }
            for folder in report.folders
        ],
        "problems": [
            {"path": problem.path, "status": str(problem.status), "reason": problem.reason}
            for problem in report.problems
        ],
        "notices": report.notices,
    }


def _locate(path: Path) -> tuple[Artifact, list[str]]:
    """Finds the artifact, and the names of the folders to verify."""
    if not path.is_dir():
        raise reject_path(path, ADVICE, is_artifact)
    full = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would leave the artifact where a folder is a link
    if is_export(path) or is_weight_export(path) or (full.name == MODEL and is_pipeline(path)):
        return Artifact.containing(full if path.name in ("", "..") else path), [full.name]
    artifact = Artifact(path)
    names = [name for name in PUBLISHED if (path / name).is_dir()]
    if not names:
        raise reject_path(path, ADVICE, is_artifact)
    return artifact, names


def _add_links(report: VerificationReport, folder: Path, prefix: str = "") -> VerificationReport:
    """Adds the links out of a folder that have no other problem. Prefix: what paths begin with, in the report."""
    known = {problem.path for problem in report.problems}
    links = [replace(problem, path=f"{prefix}{problem.path}") for problem in find_links_out(folder)]
    return replace(report, added=(*report.added, *(problem for problem in links if problem.path not in known)))


def _find_added_to_top(artifact: Artifact) -> Iterator[FileProblem]:
    for entry in sorted(artifact.path.iterdir()):
        if entry.name not in TOP_NAMES and not entry.name.startswith("."):
            yield FileProblem(entry.name, FileStatus.ADDED, "does not belong to an artifact")


# ---------------------------------------------------------------- folders


@dataclass(frozen=True)
class _Published:
    """What was published in a folder, and what is wrong with its description."""

    files: Sequence[FileRecord]
    is_hashed: bool
    problems: tuple[FileProblem, ...] = ()


def _verify_folder(artifact: Artifact, name: str, hashes: HashMemory, progress: Progress) -> FolderReport:
    folder = artifact.path / name
    description = WEIGHT_EXPORT_NAME if name in WEIGHT_EXPORTS else CONFIG_NAME
    described_by = artifact.manifest if name == MODEL else folder / description
    read = _read_weights if name in WEIGHT_EXPORTS else _read_export
    try:
        published = _read_model(artifact) if name == MODEL else read(folder)
    except UserError as error:  # what describes the folder cannot be trusted, so nothing can be compared with it
        checksums = described_by.with_name(CHECKSUMS_NAME)
        file = checksums if str(error).startswith(f"{checksums} ") else described_by
        reason = str(error).removeprefix(f"{file} ")
        path = file.relative_to(artifact.path).as_posix()
        status = FileStatus.CORRUPT if file.exists() else FileStatus.MISSING
        return FolderReport(name, problems=(FileProblem(path, status, reason),))
    changed = list(find_problems(folder, published.files, hashes, progress))
    if published.is_hashed:
        described = () if name == MODEL else (description, CHECKSUMS_NAME)
        ignored = (ENGINES_FOLDER,) if name == ONNX else ()
        changed += find_added_files(folder, {*described, *(file.path for file in published.files)}, ignored)
    elif not published.problems:
        changed += _load_export(folder)
    changed += _check_graphs(folder, {problem.path for problem in changed})
    damaged = {problem.path for problem in changed}
    inside = tuple(replace(problem, path=f"{name}/{problem.path}") for problem in changed)
    return FolderReport(
        name,
        len(published.files),
        sum(file.bytes for file in published.files),
        published.is_hashed,
        sum(file.path not in damaged and is_hub_link(folder / file.path) for file in published.files),
        (*published.problems, *inside),
    )


def _verify_listed(folder: Path, name: str, hashes: HashMemory, progress: Progress, prefix: str = "") -> FolderReport:
    """Compares a folder with its SHA256SUMS, which lists all of its files: a published repository, or a kit.

    Args:
        folder: The folder.
        name: What the report calls it.
        hashes: Hashes of files that have not changed since they were read.
        progress: Called with a stage, what is done and the total.
        prefix: What paths begin with, in the report.
    """
    path = f"{prefix}{CHECKSUMS_NAME}"
    try:
        listed = read_checksums(folder)
    except UserError as error:
        reason = str(error).removeprefix(f"{folder / CHECKSUMS_NAME} ")
        return FolderReport(name, problems=(FileProblem(path, FileStatus.CORRUPT, reason),))
    if listed is None:
        return FolderReport(name, problems=(FileProblem(path, FileStatus.MISSING, "is missing"),))
    sizes = {path: (folder / path).stat().st_size for path in listed if (folder / path).is_file()}
    records = [FileRecord(path=path, bytes=sizes.get(path, 0), sha256=sha256) for path, sha256 in listed.items()]
    problems = list(find_problems(folder, records, hashes, progress))
    problems += find_added_files(folder, {CHECKSUMS_NAME, *listed})
    inside = tuple(replace(problem, path=f"{prefix}{problem.path}") for problem in problems)
    return FolderReport(name, len(records), sum(sizes.values()), problems=inside)


def _read_model(artifact: Artifact) -> _Published:
    manifest = read_manifest(artifact.path)
    if manifest is None:
        problem = "another program's" if artifact.manifest.exists() else "missing"
        raise UserError(
            f"{artifact.manifest} is {problem}, so nothing says what {artifact.model} should hold. Copy it again."
        )
    expected = hash_published_model(artifact, manifest)
    is_required = manifest.schema_version >= CHECKSUMS_SINCE
    return _Published(manifest.files, True, tuple(_compare_checksums(artifact.path, expected, is_required, "")))


def _read_export(folder: Path) -> _Published:
    config = read_export_config(folder)
    expected = {file.path: file.sha256 for file in config.files}
    expected[CONFIG_NAME] = hash_file(folder / CONFIG_NAME)
    problems = list(_compare_checksums(folder, expected, bool(config.files), f"{folder.name}/"))
    model = _read_model_beside(folder)
    if model is not None and is_stale(config.model_sha256, config.sources, model):
        reason = f"was exported from another model than the one in {MODEL}, which was replaced since"
        problems.append(FileProblem(folder.name, FileStatus.STALE, reason))
    files = list_required_files(folder, config.recorded_files)
    return _Published(files, bool(config.files), tuple(problems))


def _read_weights(folder: Path) -> _Published:
    export = read_weight_export(folder)
    expected = {file.path: file.sha256 for file in export.files}
    expected[WEIGHT_EXPORT_NAME] = hash_file(folder / WEIGHT_EXPORT_NAME)
    problems = list(_compare_checksums(folder, expected, True, f"{folder.name}/"))
    model = _read_model_beside(folder)
    if model is not None and not export.model_sha256:
        reason = f"is of unknown origin: its {WEIGHT_EXPORT_NAME} does not say that it was exported from {MODEL}"
        problems.append(FileProblem(folder.name, FileStatus.STALE, reason))
    elif model is not None and is_stale(export.model_sha256, (), model):
        reason = f"was exported from another model than the one in {MODEL}, which was replaced since"
        problems.append(FileProblem(folder.name, FileStatus.STALE, reason))
    return _Published(export.files, True, tuple(problems))


def _read_model_beside(export: Path) -> PublishedModel | None:
    """What the manifest beside an export says of the model; None where it is not there, or fails for itself."""
    artifact = Artifact.containing(export)
    try:
        return read_published_model(artifact) if artifact.has_model else None
    except UserError:
        return None


def _compare_checksums(
    folder: Path, expected: Mapping[str, str], is_required: bool, prefix: str
) -> Iterator[FileProblem]:
    """Compares SHA256SUMS with what the files beside it say."""
    path = f"{prefix}{CHECKSUMS_NAME}"
    try:
        listed = read_checksums(folder)
    except UserError as error:
        yield FileProblem(path, FileStatus.CORRUPT, str(error).removeprefix(f"{folder / CHECKSUMS_NAME} "))
        return
    if listed is None:
        if is_required:
            yield FileProblem(path, FileStatus.MISSING, "is missing")
        return
    for name in sorted({*listed, *expected} - set(DOCUMENT_NAMES)):
        if listed.get(name) == expected.get(name):
            continue
        if name in (MANIFEST, CONFIG_NAME, WEIGHT_EXPORT_NAME) and name in listed:
            yield FileProblem(f"{prefix}{name}", FileStatus.CHANGED, "was changed: it has another SHA-256")
        else:
            yield FileProblem(path, FileStatus.CHANGED, f"was changed: it does not agree about {name}")


def _load_export(folder: Path) -> Iterator[FileProblem]:
    """Loads an export that holds no hashes, which looks at what can be seen without them."""
    from ..runtime.onnx.exported import load_exported_onnx
    from ..runtime.rknn.exported import load_exported_rknn

    try:
        if folder.name == RKNN:
            load_exported_rknn(folder)
        else:
            load_exported_onnx(folder)
    except UserError as error:
        yield FileProblem(CONFIG_NAME, FileStatus.CORRUPT, f"describes files that cannot be used: {error}")


def _check_graphs(folder: Path, known: set[str]) -> Iterator[FileProblem]:
    """Checks the ONNX graphs of a folder, and where they say that their weights are."""
    for file in sorted(folder.glob("**/*.onnx")):
        path = file.relative_to(folder).as_posix()
        if path in known or not file.is_file():
            continue
        from ..runtime.onnx.external_data import check_graph

        try:
            check_graph(file)
        except UserError as error:
            yield FileProblem(path, FileStatus.CORRUPT, str(error).removeprefix(f"{file} "))


def _run_graphs(artifact: Artifact, report: FolderReport, progress: Progress) -> FolderReport:
    """Compares the graphs of an intact export with torch, on the golden inputs that it holds."""
    if report.name != ONNX or report.problems:
        return report
    from ..runtime.golden import run_goldens

    results = run_goldens(artifact.onnx, progress)
    different = tuple(
        FileProblem(
            f"{ONNX}/{result.graph}",
            FileStatus.DIFFERENT,
            f"gives other outputs than torch: relative error {result.relative_error:.2g}, at most {result.limit:.2g}",
        )
        for result in results
        if not result.passed
    )
    return replace(report, problems=different, has_no_goldens=not results)
