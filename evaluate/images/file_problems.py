"""Says why a file is no image, or why its colors are not those that Pillow decodes, from its bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...storage.files import LFS_POINTER

BEGINNING_BYTES = 512  # that a file is recognized by
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = (PNG_SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
WEB_PAGE = re.compile(rb"\s*(?:<!doctype html|<html|<head|<body|<\?xml|<error)", re.IGNORECASE)
CHUNK_HEAD_BYTES, CHECKSUM_BYTES = 8, 4  # of a PNG chunk: its length and name before its data, a CRC behind it
CICP, FIRST_PIXELS = b"cICP", b"IDAT"
# Code points of ITU-T H.273 for primaries, transfer function, matrix, and whether all values are used.
SRGB = bytes((1, 13, 0, 1))


def find_file_problem(file: Path) -> str:
    """Says why a file cannot be decoded, by its first bytes."""
    beginning = b""
    with suppress(OSError), file.open("rb") as stream:
        beginning = stream.read(BEGINNING_BYTES)
    if not beginning:
        return "an empty file"
    if beginning.startswith(LFS_POINTER):
        return "a git-lfs pointer, not the image itself"
    if WEB_PAGE.match(beginning.removeprefix(b"\xef\xbb\xbf")):
        return "a web page, such as that of a failed download"
    if beginning.startswith(SIGNATURES):
        return "damaged or truncated"
    return "text, no image" if _is_text(beginning) else "a format that is not read"


def find_color_problem(file: Path) -> str:
    """Says which colors a PNG file has by a cICP chunk, which Pillow ignores; empty if they are sRGB."""
    with file.open("rb") as stream:
        content = next((content for name, content in _iter_chunks(stream) if name == CICP), SRGB)
    if content == SRGB:
        return ""
    numbers = ", ".join(map(str, content[:3]))
    return f"colors by cICP (primaries, transfer and matrix {numbers}) instead of sRGB"


def _iter_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yields the names of a PNG file's chunks before its pixels, and the data of cICP; nothing for another file."""
    if stream.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        return
    while len(head := stream.read(CHUNK_HEAD_BYTES)) == CHUNK_HEAD_BYTES and head[4:] != FIRST_PIXELS:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        yield name, stream.read(length) if name == CICP and length <= len(SRGB) else b""
        stream.seek(CHECKSUM_BYTES + (0 if name == CICP and length <= len(SRGB) else length), 1)


def _is_text(beginning: bytes) -> bool:
    """Whether bytes are text in UTF-8, whose last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
