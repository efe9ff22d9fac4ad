"""Finds and removes what runs leave behind: unfinished work, caches and saved tracebacks. Results are never touched."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.user_folders import get_cache_folder, get_traceback_folder
from ..runtime.rknn.toolkit import find_stale_folders
from ..storage.layout import ARTIFACTS, CONFIG_NAME, PUBLISHED, WORK, Artifact, is_written_by_edgepress
from ..storage.publishing import LOCK_FILE, TEMPORARY_NAME, artifact_lock
from ..storage.recognition import PathKind, is_artifact, recognize_path, reject_path

logger = logging.getLogger(__name__)

UNFINISHED_WORK, CACHED_IMAGES = "unfinished work", "cached images and scores"
USER_CACHE, TRACEBACKS, TOOLKIT_FILES = "user cache", "tracebacks", "files of the RKNN toolkit"
# Nothing else is removed from a folder .work, which may be of another program. Earlier releases gave no random numbers.
BACKUP_NAME = re.compile(rf"replaced-({'|'.join(PUBLISHED)})(?:-[0-9a-f]{{32}})?")
OWN_NAMES = rf"[0-9a-f]{{16}}|{BACKUP_NAME.pattern}|{TEMPORARY_NAME.pattern}|export-(?:onnx|rknn)"
WORK_NAMES = re.compile(rf"{OWN_NAMES}|toolkit")
UNIQUE_NAMES = re.compile(rf"{OWN_NAMES}|scores\.sqlite.*")  # no other program uses these
IMAGES_OF_A_BATCH = "images/" + "[0-9a-f]" * 32
CLEANED = (PathKind.ARTIFACT, PathKind.FOLDER, PathKind.EMPTY)  # an unfinished artifact may have no published folder
CACHE_NAMES = re.compile(r"images|ground-truth|scores\.sqlite.*")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that a run left behind.

    Attributes:
        kind: What it is, such as `tracebacks`.
        path: Where it is.
        bytes: Its size, with everything in it.
    """

    kind: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class CleanResult:
    """What was removed, or would be. `str()` gives a table.

    Attributes:
        leftovers: The files and folders, by kind.
        dry_run: Whether nothing was removed.
    """

    leftovers: tuple[Leftover, ...]
    dry_run: bool

    @property
    def bytes_by_kind(self) -> dict[str, int]:
        """The bytes of each kind that there is."""
        kinds = dict.fromkeys(leftover.kind for leftover in self.leftovers)
        return {kind: sum(item.bytes for item in self.leftovers if item.kind == kind) for kind in kinds}

    @property
    def bytes(self) -> int:
        """The bytes of all."""
        return sum(leftover.bytes for leftover in self.leftovers)

    def __str__(self) -> str:
        if not self.leftovers:
            return "There is nothing to remove."
        rows = [*self.bytes_by_kind.items(), ("Would be removed" if self.dry_run else "Removed", self.bytes)]
        width = max(len(kind) for kind, _ in rows)
        return "\n".join(f"{kind:{width}}  {_format_bytes(count):>9}" for kind, count in rows)


@check_arguments
def clean(artifact: str | Path | None = None, *, dry_run: bool = False) -> CleanResult:
    """Removes what runs leave behind. Published files, reports and results of evaluations and benchmarks stay.

    Args:
        artifact: The artifact whose unfinished work is removed; it cannot be resumed then. Default: that of all
            artifacts in `artifacts`, cached images and scores there, traced graphs in the user's cache, saved
            tracebacks, and what a killed RKNN toolkit left in the temporary folder.
        dry_run: Remove nothing, and say what would be removed.

    Returns:
        What was removed, and its size. `print` shows a table.

    Raises:
        UserError: The artifact does not exist, or is a folder that edgepress never wrote to, or another process is
            using it or the images that are cached in it. Without an artifact, what is in use is left alone, with a
            warning.
    """
    if artifact is not None:
        folder = Path(artifact)
        if not folder.exists():
            raise UserError(f"Artifact folder {folder} does not exist. Check the name.")
        if recognize_path(folder) not in CLEANED and not Artifact(folder).work.is_dir():
            raise reject_path(folder, "Give an artifact", is_artifact)
        if not _is_own_folder(folder):
            raise UserError(f"{folder} is no artifact: its folder {WORK} is not edgepress's. Check the name.")
        return CleanResult(tuple(_clean_artifact(folder, dry_run)), dry_run)
    leftovers: list[Leftover] = []
    for folder in [*sorted(path.parent for path in ARTIFACTS.glob(f"*/{WORK}")), ARTIFACTS]:
        if not _is_own_folder(folder):
            continue
        try:
            leftovers += _clean_artifact(folder, dry_run)
        except UserError as error:  # in use
            logger.warning("%s", error)
    of_user = list(_find_of_user())
    if not dry_run:
        _remove(of_user)
    return CleanResult((*leftovers, *of_user), dry_run)


def _is_own_folder(folder: Path) -> bool:
    """Whether what is in the `.work` of a folder is edgepress's, or there is none."""
    artifact = Artifact(folder)
    works = [work for work in (artifact.work, artifact.evaluation / WORK) if work.is_dir()]
    descriptions = (artifact.manifest, artifact.onnx / CONFIG_NAME, artifact.rknn / CONFIG_NAME)
    is_published = any(map(is_written_by_edgepress, descriptions))
    return not works or is_published or any(map(_is_own, works))


def _is_own(work: Path) -> bool:
    """Whether a folder for unfinished work was made by edgepress; a killed run may have left no more than its lock."""
    names = [path.name for path in work.iterdir()]
    has_own = any(map(UNIQUE_NAMES.fullmatch, names)) or any(work.glob(IMAGES_OF_A_BATCH))
    return has_own or names in ([], [LOCK_FILE])


def _clean_artifact(folder: Path, dry_run: bool) -> list[Leftover]:
    """Removes the unfinished work of an artifact and of evaluations in it, while no other process uses either."""
    places = [place for place in (folder, Artifact(folder).evaluation) if Artifact(place).work.is_dir()]
    leftovers = [leftover for place in places for leftover in _find_in(Artifact(place).work)]
    if not dry_run:
        with ExitStack() as locks:
            for place in places:
                locks.enter_context(artifact_lock(place))  # also removes its own file, and the empty folder
            _remove(leftovers)
    return leftovers


def _find_in(work: Path) -> Iterator[Leftover]:
    """What runs left in a folder for unfinished work; backups of what is missing are no leftovers."""
    for path in sorted(work.glob("*")):
        backup = BACKUP_NAME.fullmatch(path.name)
        is_needed = backup is not None and not (work.parent / backup[1]).exists()
        if WORK_NAMES.fullmatch(path.name) and not is_needed:
            yield _measure(UNFINISHED_WORK, path)
        elif CACHE_NAMES.fullmatch(path.name):
            yield _measure(CACHED_IMAGES, path)


def _find_of_user() -> Iterator[Leftover]:
    """What is in no folder of artifacts."""
    with suppress(RuntimeError):  # no home folder
        for kind, folder in ((USER_CACHE, get_cache_folder()), (TRACEBACKS, get_traceback_folder())):
            if folder.exists():
                yield _measure(kind, folder)
    for folder in find_stale_folders():
        yield _measure(TOOLKIT_FILES, folder)


def _measure(kind: str, path: Path) -> Leftover:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Leftover(kind, path, sum(file.lstat().st_size for file in files))


def _remove(leftovers: Iterable[Leftover]) -> None:
    """Removes files and folders, and the folders for unfinished work that are empty then."""
    for leftover in leftovers:
        path = leftover.path
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.name == WORK:
            with suppress(OSError):  # not empty
                path.parent.rmdir()


def _format_bytes(count: int) -> str:
    """Bytes in a unit that leaves at most four digits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
