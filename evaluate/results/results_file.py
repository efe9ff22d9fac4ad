"""Reads and writes results.json, in which the paths of images begin at its folder."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ...common.errors import UserError
from ...common.regular_files import require_regular
from ...common.validation import explain_value
from ...storage.files import write_json
from ...storage.layout import BENCH_RESULTS, CONFIG_NAME, EVALUATION_RESULTS, MANIFEST, MODEL_INDEX
from ...storage.recognition import reject_path
from ...storage.strict_json import parse_strict_json
from .contradictions import find_contradiction
from .legacy import upgrade_version_2
from .locations import locate, relate_path
from .schema import SCHEMA_VERSION, Results

OLDEST_READABLE_VERSION = 2
OTHER_FILES = (MANIFEST, CONFIG_NAME, MODEL_INDEX, BENCH_RESULTS)  # that have schema versions of their own


def save_results(results: Results, path: Path) -> None:
    """Writes results.json atomically. The file never contains Infinity or NaN, which JSON lacks."""
    content = results.model_dump(mode="json")
    content["identity"]["image_folder"] = relate_path(results.identity.image_folder, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(content, path)


def load_results(path: Path | str) -> Results:
    """Loads a results.json of this or the previous schema version.

    Args:
        path: path of the file.

    Raises:
        UserError: the file cannot be read, has another schema version, or its numbers contradict each other.
    """
    if Path(path).is_dir() or Path(path).name in OTHER_FILES:
        raise reject_path(Path(path), f"Give the {EVALUATION_RESULTS} of an evaluation", _is_results_file)
    require_regular(Path(path))
    try:
        content = parse_strict_json(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}). Run `edgepress evaluate` first.") from error
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"{path} is not a results file: {reason}. Run `edgepress evaluate` again.") from error
    version = content.get("schema_version")
    if type(version) is not int or not OLDEST_READABLE_VERSION <= version <= SCHEMA_VERSION:
        is_newer = type(version) is int and version > SCHEMA_VERSION
        raise UserError(
            f"{path} has schema version {json.dumps(version)[:20]}, but this version of edgepress reads "
            f"{OLDEST_READABLE_VERSION} to {SCHEMA_VERSION}. {'Update edgepress' if is_newer else 'Evaluate again'}, "
            "or give another file."
        )
    try:
        results = Results.model_validate(upgrade_version_2(content) if version == OLDEST_READABLE_VERSION else content)
    except (ValidationError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else explain_value(error.errors()[0])
        raise UserError(
            f"{path} is not a valid results file of schema version {version}: {problem}. Run `edgepress evaluate` "
            "again."
        ) from error
    contradiction = find_contradiction(results)
    if contradiction:
        raise UserError(f"{path} contradicts itself: {contradiction}. Run `edgepress evaluate` again.")
    images = locate(results.identity.image_folder, Path(path).parent)
    return results.model_copy(update={"identity": results.identity.model_copy(update={"image_folder": images})})


def _is_results_file(path: Path) -> bool:
    return path.name == EVALUATION_RESULTS and path.is_file()
