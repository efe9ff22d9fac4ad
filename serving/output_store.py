"""Generated images on disk, of which the newest are kept."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from time import time
from uuid import uuid4

from pydantic import Field, ValidationError

from .images import EncodedImage, ImageFacts

NAME = re.compile(r"\d{13}-[0-9a-f]{32}\.(?:png|jpeg|webp)")
HOUR_S = 3600.0


class StoredImage(ImageFacts):
    """An image on disk."""

    name: str = Field(description="The name of its file.")
    created: float = Field(description="When it was generated, in seconds since 1970.")
    bytes: int = Field(description="The size of its file.")


class OutputStore:
    """The generated images of a server. Their prompts are not stored.

    Args:
        folder: The folder, which is created.
        keep_images: Number of images that are kept; 0 for none.
        keep_hours: Hours that each is kept.
    """

    def __init__(self, folder: Path, keep_images: int, keep_hours: float) -> None:
        self._folder, self._keep_images, self._keep_hours = folder, keep_images, keep_hours
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.new"):  # what a killed server left
            file.unlink()
        self.prune()

    def add(self, image: EncodedImage) -> str | None:
        """Stores an image.

        Returns:
            The name of its file; None if no images are kept.

        Raises:
            OSError: It cannot be written.
        """
        if not self._keep_images:
            return None
        created = time()
        name = f"{int(created * 1000):013d}-{uuid4().hex}.{image.facts.format}"
        facts = image.facts.model_copy(update={"warnings": []})  # which quote the prompt
        stored = StoredImage(**facts.model_dump(), name=name, created=round(created, 3), bytes=len(image.content))
        # An image is listed by its facts, which are therefore written last. Neither is synced to disk: after a power
        # cut an image may be missing, and cards wear less.
        self._write(name, image.content)
        self._write(f"{name}.json", stored.model_dump_json().encode())
        self.prune()
        return name

    def list_all(self) -> list[StoredImage]:
        """The facts of all images, the newest first."""
        files = sorted(self._folder.glob("*.json"), reverse=True)
        images = (_read_facts(file) for file in files)
        return [image for image in images if image is not None]

    def find(self, name: str) -> Path | None:
        """The file of an image; None if there is none of this name."""
        path = self._folder / name
        return path if NAME.fullmatch(name) and path.is_file() else None

    def remove(self, name: str) -> bool:
        """Removes an image; False if there is none of this name."""
        path = self.find(name)
        if path is None:
            return False
        path.with_name(f"{name}.json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return True

    def prune(self) -> None:
        """Removes images that are too old, or more than may be kept."""
        oldest = time() - self._keep_hours * HOUR_S
        with os.scandir(self._folder) as entries:  # a path for each file would take milliseconds of every request
            names = sorted((entry.name for entry in entries if NAME.fullmatch(entry.name)), reverse=True)
        for index, name in enumerate(names):
            if index >= self._keep_images or int(name.partition("-")[0]) / 1000 < oldest:
                self.remove(name)

    def _write(self, name: str, content: bytes) -> None:
        temporary = self._folder / f"{name}.new"
        try:
            temporary.write_bytes(content)
            temporary.replace(self._folder / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def _read_facts(file: Path) -> StoredImage | None:
    try:
        return StoredImage.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # removed since, or cut off by a power failure
        return None
