"""The file that `edgepress generate` writes: an image file, also behind a link, or a pipe or device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..storage.preflight import check_results_folder

if TYPE_CHECKING:
    from PIL.Image import Image

STANDARD_OUTPUT = 1  # its descriptor
LOSSY_FORMATS = ("JPEG", "WEBP")
TEST_SIZE = (16, 16)  # pixels of the image that a file format is tried with


@dataclass(frozen=True)
class ImageOutput:
    """Where an image goes, and how.

    Attributes:
        path: The file as the user gave it.
        target: What is written: the file itself, or what it is a link to.
        image_format: The format that its name asks for, as Pillow calls it.
        quality: 1 to 100, for formats that lose something.
    """

    path: Path
    target: Path
    image_format: str
    quality: int

    @property
    def is_stream(self) -> bool:
        """Whether it is a pipe or device, which is written to and not replaced."""
        return self.target.exists() and not self.target.is_file()

    @property
    def is_standard_output(self) -> bool:
        """Whether it is a link to what the command prints to."""
        return self.is_stream and os.path.samestat(self.target.stat(), os.fstat(STANDARD_OUTPUT))

    def save(self, image: Image, **options: Any) -> None:
        """Saves an image; in a file in one piece, so that an interrupted run leaves no half image.

        Args:
            image: The image.
            options: Further arguments of `Image.save`.
        """
        from ..storage.atomic_file import atomic_write

        if self.is_stream:
            buffer = BytesIO()  # formats such as TIFF need to go back in what they write
            self._write(image, buffer, options)
            self.target.write_bytes(buffer.getvalue())
        else:
            atomic_write(self.target, lambda temporary: self._write(image, temporary, options))

    def _write(self, image: Image, target: Path | BytesIO, options: Mapping[str, Any]) -> None:
        lossy = {"quality": self.quality} if self.image_format in LOSSY_FORMATS else {}
        image.save(target, self.image_format, **lossy, **options)


def resolve_output(path: Path, quality: int) -> ImageOutput:
    """Finds out where an image goes, before it is generated.

    Args:
        path: The file; what a link leads to is written, and the link stays.
        quality: 1 to 100, for formats that lose something.

    Raises:
        UserError: Its name asks for no image format, or it cannot be written.
    """
    from PIL import Image

    suffix = path.suffix.lower()
    Image.preinit()  # of the common formats: all of them take 2 MB, and time
    image_format = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix, "")
    if not _can_save(image_format):
        raise UserError(f"{path} names no image format that can be written. End it in .png.")
    output = ImageOutput(path, path if _is_stream(path) else _follow_link(path), image_format, quality)
    folder = output.target.parent
    is_writable = os.access(output.target if output.is_stream else folder, os.W_OK)
    if output.target.is_dir() or output.target.is_socket() or not folder.is_dir() or not is_writable:
        raise UserError(f"{path} cannot be written. Give a file in an existing folder with write permission.")
    if not output.is_stream:
        check_results_folder(folder)
    return output


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _follow_link(path: Path) -> Path:
    """What a path leads to.

    Raises:
        UserError: It is a link to itself.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is a link that leads nowhere. Give another file.") from error


def _can_save(image_format: str) -> bool:
    """Whether images can be saved in a format, which is tried: some can only be read, or hold no colors."""
    from PIL import Image

    try:
        Image.new("RGB", TEST_SIZE).save(BytesIO(), image_format)
    except (KeyError, OSError, ValueError):
        return False
    return True
