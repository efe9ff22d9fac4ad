"""Whether an export belongs to the quantized pipeline beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ..common.errors import UserError
from .files import FileRecord
from .layout import (
    MODEL,
    SIMULATOR_FOLDER,
    WEIGHT_EXPORTS,
    Artifact,
    is_export,
    is_pipeline,
    is_weight_export,
    locate_folder,
)
from .pipeline_config import read_export_config
from .published_model import PublishedModel, read_published_model
from .weight_export import read_weight_export

MAKE_AGAIN = "Make the folder again, or copy it again from where it was made."


def is_stale(model_sha256: str | None, sources: Collection[FileRecord], model: PublishedModel) -> bool:
    """Whether an export was made from a model that was replaced since.

    Exports of earlier releases say of which files they were made, not where those were. They are stale if these are
    neither the files of the model nor those of the original pipeline.

    Args:
        model_sha256: Digest of the model that the export was made from; empty if it was made from another folder, and
            None if the export does not say.
        sources: The files that it was made from.
        model: The model beside it.
    """
    if model_sha256 is not None:
        return model_sha256 not in ("", model.sha256)
    return bool(sources) and set(sources) not in (set(model.files), set(model.sources))


def require_fresh(folder: Path, model_sha256: str | None, sources: Collection[FileRecord]) -> None:
    """Checks an export against the model beside it, if there is one.

    Raises:
        UserError: The model was replaced since the export was made.
    """
    artifact = Artifact.containing(folder)
    model = read_published_model(artifact) if artifact.has_model else None
    if model is not None and is_stale(model_sha256, sources, model):
        raise UserError(
            f"{folder} was exported from another model than the one in {artifact.model}, which was replaced since. Run "
            f"'edgepress export {locate_folder(folder).name}' again."
        )


def require_same_model(model: Path, artifact: Artifact) -> None:
    """Checks that the model of an artifact is exported to that artifact, a copy of it, or one without a model.

    What is exported beside another quantized model would be described and published as made from that.

    Args:
        model: The folder of the pipeline to export; one that no artifact recorded, such as an original, may be any.
        artifact: The artifact to export to.

    Raises:
        UserError: The artifact has another model, or its manifest is corrupt.
    """
    if not artifact.has_model or model.resolve() == artifact.model.resolve():
        return
    published, recorded = read_published_model(artifact), read_recorded_files(model)
    if published is not None and recorded and set(recorded) != set(published.files):
        raise UserError(
            f"{artifact.path} has another quantized model than {model}, so the export would not belong to it. Choose "
            "another output folder."
        )


def find_stale_exports(artifact: Artifact) -> list[Path]:
    """Finds the exports of an artifact that were made from another model than the one that it has now."""
    model = read_published_model(artifact)
    exports = [folder for folder in (artifact.onnx, artifact.rknn) if is_export(folder)]
    exports += [artifact.path / name for name in WEIGHT_EXPORTS if is_weight_export(artifact.path / name)]
    return [folder for folder in exports if model is not None and _is_stale_export(folder, model)]


def read_recorded_files(folder: Path) -> tuple[FileRecord, ...]:
    """Reads what was recorded of the files in a folder when it was published.

    Args:
        folder: The `model`, `onnx` or `rknn` of an artifact, or any other folder.

    Returns:
        The files; empty if nothing was recorded.

    Raises:
        UserError: The file that records it is corrupt, or of a newer version.
    """
    if is_export(folder):
        return read_export_config(folder).recorded_files
    if locate_folder(folder).name == MODEL and is_pipeline(folder):
        model = read_published_model(Artifact.containing(folder))
        return model.files if model else ()
    return ()


def describe_missing_hashes(folder: Path) -> str:
    """A sentence about an export whose files cannot be compared with hashes."""
    return (
        f"The files in {folder} could not be checked: an earlier release exported them, without hashes. Export again "
        "to have them checked."
    )


def _is_stale_export(folder: Path, model: PublishedModel) -> bool:
    try:
        if is_weight_export(folder):
            return is_stale(read_weight_export(folder).model_sha256, (), model)
        config = read_export_config(folder)
    except UserError:  # loading it says what is wrong
        return False
    return is_stale(config.model_sha256, config.sources, model)


def list_required_files(folder: Path, files: Sequence[FileRecord]) -> list[FileRecord]:
    """The files of an export that must be there: on a board the folder of the simulator may be left out as a whole."""
    is_whole = (folder / SIMULATOR_FOLDER).exists()
    return [file for file in files if is_whole or not file.path.startswith(f"{SIMULATOR_FOLDER}/")]


def require_recorded(folder: Path, files: Sequence[FileRecord]) -> None:
    """Compares the files of a folder with what was recorded when it was published; files without a record are ignored.

    Args:
        folder: The `model`, `onnx` or `rknn` of an artifact, or any other folder.
        files: Its files as they are.

    Raises:
        UserError: A file is missing or was changed.
    """
    present = {file.path: file for file in files}
    for record in list_required_files(folder, read_recorded_files(folder)):
        if present.get(record.path) != record:
            problem = "was changed: it has another SHA-256" if record.path in present else "is missing"
            raise UserError(f"{folder / record.path} {problem}. {MAKE_AGAIN}")
