"""Compares the prompts that image files record with those that their names stand for: files may have been exchanged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from ...common.errors import UserError
from ...runtime.batch_record import BATCH_RECORD, find_exchanged_files
from ...runtime.image_metadata import read_origin, read_prompt_hash
from .image_file import list_images

MAX_LISTED = 4  # in a message
logger = logging.getLogger(__name__)


def read_recorded_prompts(folder: Path) -> dict[str, str]:
    """Reads from image files the SHA-256 of the prompts that they were generated from, where they record it.

    Args:
        folder: Folder of the images.

    Returns:
        The hashes by file stem. Damaged files are left out.
    """
    from PIL import Image

    hashes: dict[str, str] = {}
    for stem, file in list_images(folder).items():
        try:
            with Image.open(file) as image:
                sha256 = read_prompt_hash(read_origin(image))
        except (OSError, SyntaxError, ValueError):  # as Pillow says that a file is damaged
            continue
        if sha256 is not None:
            hashes[stem] = sha256
    return hashes


def check_recorded_prompts(folder: Path, expected: Mapping[str, str]) -> None:
    """Checks that no image is that of another prompt. Of prompts that are not expected at all, there is a warning.

    Args:
        folder: Folder of the images.
        expected: The SHA-256 of the prompts by file stem.

    Raises:
        UserError: The image of one prompt is named after another one.
    """
    _check_files(folder)
    stems = {sha256: stem for stem, sha256 in expected.items()}
    recorded = read_recorded_prompts(folder)
    different = {stem: sha256 for stem, sha256 in recorded.items() if expected.get(stem, sha256) != sha256}
    exchanged = [f"{stem} is the image of {stems[sha256]}" for stem, sha256 in different.items() if sha256 in stems]
    if exchanged:
        raise UserError(
            f"{len(exchanged)} images in {folder} are named after other prompts than those that their files record: "
            f"{', '.join(exchanged[:MAX_LISTED])}. Rename them, or generate them again."
        )
    if different:
        logger.warning(
            "%d images in %s record other prompts than those that they are compared with: %s.",
            len(different),
            folder,
            ", ".join(list(different)[:MAX_LISTED]),
        )


def _check_files(folder: Path) -> None:
    """Checks that no image of a batch is where the batch has put another one. Of changed images there is a warning.

    Raises:
        UserError: The image of one prompt is named after another one.
    """
    different = find_exchanged_files(folder)
    exchanged = [f"{name} is what was written as {written}" for name, written in different.items() if written]
    if exchanged:
        raise UserError(
            f"{len(exchanged)} images in {folder} are not those that {BATCH_RECORD} lists: "
            f"{', '.join(exchanged[:MAX_LISTED])}. Rename them, or generate them again."
        )
    if different:
        names = ", ".join(list(different)[:MAX_LISTED])
        logger.warning("%d images in %s were changed since they were generated: %s.", len(different), folder, names)
