"""Writes an artifact as a model repository with a card, and uploads it to the Hugging Face Hub."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..common.arguments import check_arguments
from ..common.errors import UserError, escape_controls, summarize_error
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..storage.checksums import write_checksums
from ..storage.files import FileRecord, list_files, record_file
from ..storage.layout import CHECKSUMS_NAME, DIFFUSERS, MANIFEST, MODEL, PUBLISHED, Artifact
from ..storage.manifest import Manifest, read_manifest
from ..storage.new_folder import check_new_folder, link_or_copy, new_folder
from ..storage.preflight import is_within
from ..storage.recognition import is_artifact, reject_path
from .description_check import AGAIN
from .licenses import LICENSE_LIST, RESTRICTED, is_spdx, require_license
from .repository_card import RECIPE_NAME, CardSettings, build_front_matter, build_text
from .sample_images import copy_samples
from .verification import verify

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"


@dataclass(frozen=True)
class PublishResult:
    """A model repository. `print` shows where it is.

    Attributes:
        repo_id: The repository, as `owner/name`.
        files: The files in it.
        folder: The local folder; None if nothing was kept.
        url: The repository's address; empty after a dry run.
    """

    repo_id: str
    files: tuple[FileRecord, ...]
    folder: Path | None
    url: str = ""

    def __str__(self) -> str:
        size = sum(file.bytes for file in self.files) / 1e6
        place = self.url or f"{self.folder}, not uploaded"
        return f"{self.repo_id}: {len(self.files)} files, {size:.1f} MB, in {place}"


@check_arguments
@requires_extra("quantize")
def publish(
    artifact: str | Path,
    repo_id: str,
    *,
    folders: Sequence[str] = (),
    base_model: str = "",
    license: str = "",  # noqa: A002
    private: bool = False,
    dry_run: bool = False,
    output: str | Path | None = None,
    progress: Progress = no_progress,
) -> PublishResult:
    """Publishes an artifact as a model repository on the Hugging Face Hub, with a model card.

    The folder for stock diffusers is the top of the repository, or else the quantized pipeline; other exports are
    folders in it. Every file is compared with its SHA-256 first.

    Args:
        artifact: The artifact.
        repo_id: The repository, as `owner/name`. It is created if needed.
        folders: Folders of the artifact to publish, such as `model` and `gguf`; empty: all.
        base_model: The original on the Hub; default: what it was quantized from, if that was a Hub id.
        license: Identifier of the licence; default: that of the original's card.
        private: Whether a new repository is private.
        dry_run: Write the folder and upload nothing.
        output: The folder to write, which must be new or empty; needed for a dry run.
        progress: Called with a stage, what is done and the total.

    Returns:
        The files, and where they are. `print` shows it.

    Raises:
        UserError: Bad input, a file that is not as it was published, no licence or no token to upload with, or an
            upload that failed.
    """
    source = Artifact(Path(artifact))
    manifest = _read_manifest(source)
    names = _choose_folders(source, folders)
    settings = CardSettings(_require_repo_id(repo_id), base_model, license)
    if dry_run and output is None:
        raise UserError("A dry run writes a folder. Name it with --output.")
    if output is not None:
        if is_within(Path(output), source.path):
            raise UserError(f"The output {output} is inside the artifact {source.path}. Choose another --output.")
        check_new_folder(Path(output))
    if license:
        require_license(license)
    if base_model:
        _require_repo_id(base_model)
    front_matter = build_front_matter(source, manifest, settings)
    if not dry_run and not front_matter.get("license"):
        raise UserError(f"{source.path} does not say under which licence it may be published. Pass --license.")
    _announce_license(front_matter)
    _require_intact(source, progress)
    with _repository_folder(output) as folder:
        _write_repository(source, manifest, names, folder)
        samples = copy_samples(source, folder)
        _write_card(folder, front_matter, build_text(source, manifest, settings, names, samples))
        files = [record_file(folder, name) for name in list_files(folder) if name != CHECKSUMS_NAME]
        write_checksums(files, folder)
        url = "" if dry_run else _upload(folder, settings.repo_id, private)
    return PublishResult(settings.repo_id, tuple(files), Path(output) if output is not None else None, url)


def _read_manifest(artifact: Artifact) -> Manifest:
    manifest = read_manifest(artifact.path) if artifact.has_model else None
    if manifest is None:
        raise reject_path(artifact.path, "Give an artifact that 'edgepress quantize' made", is_artifact)
    return manifest


def _choose_folders(artifact: Artifact, names: Sequence[str]) -> list[str]:
    """The folders to publish; that which becomes the top of the repository is first."""
    present = [name for name in PUBLISHED if (artifact.path / name).is_dir()]
    unknown = [name for name in names if name not in present]
    if unknown:
        raise UserError(f"{artifact.path} has no folder {unknown[0]!r}. Choose from: {', '.join(present)}.")
    chosen = [name for name in present if name in (names or present)]
    top = next((name for name in (DIFFUSERS, MODEL) if name in chosen), None)
    if top == DIFFUSERS and not names:
        chosen.remove(MODEL)  # the same weights
    return [top, *(name for name in chosen if name != top)] if top else chosen


def _require_repo_id(repo_id: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is not the name of a repository. Write it like owner/name.") from error
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} names no owner. Write it like owner/name.")
    return repo_id


def _announce_license(front_matter: dict[str, Any]) -> None:
    identifier = front_matter.get("license")
    if not identifier:
        logger.warning("The card names no licence, and without one nothing is uploaded. Pass --license.")
    elif identifier == RESTRICTED:
        name, link = (
            front_matter.get("license_name", "of its own"),
            front_matter.get("license_link", "no link is given"),
        )
        logger.warning(
            "The original has a licence that restricts its use: %s (%s). It applies to this as well.", name, link
        )
    elif isinstance(identifier, str) and not is_spdx(identifier):
        logger.warning(
            "The licence '%s' is no identifier of SPDX. The Hub has a few of its own: compare it with %s. Correct it "
            "with --license if it is not among them.",
            escape_controls(identifier),
            LICENSE_LIST,
        )


def _require_intact(artifact: Artifact, progress: Progress) -> None:
    report = verify(artifact.path, run=False, progress=progress)
    for problem in report.problems:
        explanation = f"{artifact.path / problem.path} {problem.reason.removesuffix('.')}."
        if explanation.endswith(AGAIN) or problem.reason.endswith("."):  # it says what to do
            raise UserError(explanation)
        raise UserError(f"{explanation} Make the folder again before publishing it.")


@contextmanager
def _repository_folder(output: str | Path | None) -> Iterator[Path]:
    """The folder to write: the given one, or a temporary one."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="edgepress-") as temporary:
            yield Path(temporary)
        return
    with new_folder(Path(output)) as folder:
        yield folder


def _write_repository(artifact: Artifact, manifest: Manifest, names: Sequence[str], folder: Path) -> None:
    """Puts the published folders into the repository, as links of the same files where the disk allows it."""
    for name in names:
        is_top = name in (DIFFUSERS, MODEL) and name == names[0]
        target = folder if is_top else folder / name
        for file in list_files(artifact.path / name):
            if is_top and file in (CHECKSUMS_NAME, CARD_NAME):
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(artifact.path / name / file, target / file)
    shutil.copyfile(artifact.manifest, folder / MANIFEST)
    text = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True)
    (folder / RECIPE_NAME).write_text(text, "utf-8")


def _write_card(folder: Path, front_matter: dict[str, Any], text: str) -> None:
    from huggingface_hub import ModelCardData

    data = ModelCardData(**front_matter)
    (folder / CARD_NAME).write_text(f"---\n{data.to_yaml()}\n---\n\n{text}", "utf-8")


def _upload(folder: Path, repo_id: str, private: bool) -> str:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, as its release uses

    if get_token() is None:
        raise UserError("There is no token to upload with. Run 'hf auth login' first, or pass --dry-run.")
    client = HfApi()
    try:
        url = client.create_repo(repo_id, private=private, exist_ok=True)
        client.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload with edgepress")
    except (HTTPError, OSError) as error:
        raise UserError(
            f"Uploading to {repo_id} failed ({summarize_error(error)}). Check the network and the token's rights."
        ) from error
    return str(url)
