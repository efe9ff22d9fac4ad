"""SHA256SUMS: the hashes of a folder's files as `sha256sum -c SHA256SUMS` reads them.

It lists all that was published with it, and the JSON file that describes those files as well, so that no byte can
change unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.regular_files import read_regular_text
from ..common.validation import format_value
from .atomic_file import atomic_write
from .files import FileRecord, hash_file
from .layout import CHECKSUMS_NAME
from .relative_path import is_relative_path

# GNU coreutils escape names with a backslash or a line break, and then begin the line with a backslash.
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
UNESCAPES = {escaped: character for character, escaped in ESCAPES.items()}
COPY_AGAIN = "Copy the folder again from where it was made."
LINE = re.compile(r"(?P<escaped>\\?)(?P<sha256>[0-9a-f]{64})  (?P<path>.+)")
ESCAPE = "\\"  # what a line with such a name begins with


def write_checksums(files: Sequence[FileRecord], folder: Path, name: str = CHECKSUMS_NAME) -> None:
    """Writes SHA256SUMS into a folder.

    Args:
        files: What it lists, by paths relative to the folder.
        folder: The folder.
        name: Another name of the file.
    """
    text = "".join(_format_line(file.path, file.sha256) for file in sorted(files, key=lambda file: file.path))

    def write(temporary: Path) -> None:
        temporary.write_text(text, "utf-8")

    atomic_write(folder / name, write)


def read_checksums(folder: Path, name: str = CHECKSUMS_NAME) -> dict[str, str] | None:
    """Reads the SHA256SUMS of a folder.

    Args:
        folder: The folder.
        name: Another name of the file.

    Returns:
        SHA-256 in hexadecimal by path; None if there is no such file.

    Raises:
        UserError: The file cannot be read, or has a line of another form. Nothing else lists the hash of this file, so
            that not even a blank line may differ from what `sha256sum` writes.
    """
    file = folder / name
    try:
        text = read_regular_text(file, newline="")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read. {COPY_AGAIN}") from error
    matches = [LINE.fullmatch(line) for line in text.split("\n")]
    checksums = {_parse_path(match): match["sha256"] for match in matches if match}
    if text != "".join(_format_line(path, sha256) for path, sha256 in checksums.items()):
        raise UserError(
            f"{file} has a line that sha256sum does not write. Copy the folder again from where it was made."
        )
    outside = next((path for path in checksums if not is_relative_path(path)), None)
    if outside is not None:
        raise UserError(f"{file} lists {format_value(outside)}, which is no path below its folder. {COPY_AGAIN}")
    return checksums


def require_checksum(
    file: Path, checksums: Mapping[str, str] | None, remedy: str, *, is_required: bool = False
) -> None:
    """Checks a file in the folder of a SHA256SUMS.

    Args:
        file: The file.
        checksums: What SHA256SUMS lists; None if there is none.
        remedy: A sentence that says what to do.
        is_required: Whether the file must be listed; if not, one that is not listed is not checked.

    Raises:
        UserError: Its SHA-256 is not the one that is listed, or it must be listed and is not.
    """
    if checksums is None or file.name not in checksums:
        if is_required:
            problem = "is missing" if checksums is None else f"does not list {file.name}"
            raise UserError(f"{file.with_name(CHECKSUMS_NAME)} {problem}. {remedy}")
    elif hash_file(file) != checksums[file.name]:
        raise UserError(f"{file} was changed: its SHA-256 is not the one in {CHECKSUMS_NAME}. {remedy}")


def _format_line(path: str, sha256: str) -> str:
    escaped = "".join(ESCAPES.get(character, character) for character in path)
    return f"{'' if escaped == path else ESCAPE}{sha256}  {escaped}\n"


def _parse_path(match: re.Match[str]) -> str:
    if not match["escaped"]:
        return match["path"]
    return re.sub(r"\\[\\nr]", lambda escaped: UNESCAPES[escaped[0]], match["path"])
