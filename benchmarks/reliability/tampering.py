"""Tampers with every published file of an artifact, in every way: `verify` must find each.

Run by `make tampering`, on a copy. Only files are compared, since graphs on golden inputs could only find more.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from ...api.verification import verify
from ...common.markdown_table import render_table
from ...common.progress import progress_bars
from ...storage.checksums import read_checksums
from ...storage.files import hash_file, list_files
from ...storage.layout import BENCH, CHECKSUMS_NAME, EVALUATION, LOCAL, LOCAL_CHECKSUMS, TIMINGS, WORK
from ..common.report import write_section
from .scratch import make_scratch_folder

Tampering = Callable[[Path], None]
# What is measured or set up where the artifact runs is not published with it.
NOT_PUBLISHED = (EVALUATION, BENCH, WORK, TIMINGS, LOCAL, LOCAL_CHECKSUMS)
OUTSIDE, EQUAL = "outside", "equal"  # files beside the artifact, of another content and of that of the file


def flip_byte(position: float) -> Tampering:
    """Flips the bits of one byte, at a position from 0 (the first) to 1 (the last)."""

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[round(position * (len(content) - 1))] ^= 0xFF
        file.write_bytes(content)

    return flip


def flip_byte_secretly(file: Path) -> None:
    """Flips a byte in the middle, and sets the time of modification back."""
    status = file.stat()
    flip_byte(0.5)(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_to(share: float) -> Tampering:
    """Leaves a share of the bytes, and at least one byte less."""

    def cut(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: min(round(share * len(content)), len(content) - 1)])

    return cut


def append_byte(file: Path) -> None:
    """Adds a byte at the end."""
    file.write_bytes(file.read_bytes() + b"\n")


def link_outside(file: Path) -> None:
    """Puts a link to a file out of the artifact in its place."""
    file.unlink()
    file.symlink_to(_find_root(file).with_name(OUTSIDE))


def link_to_equal(file: Path) -> None:
    """Puts a link to a file out of the artifact in its place, of the same content: it can be changed from there."""
    equal = _find_root(file).with_name(EQUAL)
    shutil.copyfile(file, equal)
    file.unlink()
    file.symlink_to(equal)


def link_to_nothing(file: Path) -> None:
    """Puts a link to nothing in its place."""
    file.unlink()
    file.symlink_to("nothing")


def add_beside(file: Path) -> None:
    """Adds a file beside it."""
    file.with_name(f"{file.stem}-2{file.suffix}").write_bytes(b"x")


def name_newer_schema(file: Path) -> None:
    """Raises the version of its schema, with the hashes of SHA256SUMS as they should be."""
    _change_json(file, lambda content: content.update(schema_version=content["schema_version"] + 1))


def name_path_outside(file: Path) -> None:
    """Lets its first file be one out of the artifact, with the hashes of SHA256SUMS as they should be."""
    outside = _find_root(file).with_name(OUTSIDE)
    record = {"path": os.path.relpath(outside, file.parent), "bytes": outside.stat().st_size}

    def change(content: dict[str, Any]) -> None:
        content["files"][0] |= {**record, "sha256": hash_file(outside)}

    _change_json(file, change)


EVERY_FILE: dict[str, Tampering] = {
    "first byte flipped": flip_byte(0),
    "middle byte flipped": flip_byte(0.5),
    "last byte flipped": flip_byte(1),
    "middle byte flipped, time of modification set back": flip_byte_secretly,
    "cut in half": cut_to(0.5),
    "last byte cut": cut_to(1),
    "byte appended": append_byte,
    "removed": Path.unlink,
    "link to a file out of the artifact": link_outside,
    "link to a file out of the artifact, of the same content": link_to_equal,
    "link to nothing": link_to_nothing,
    "file added beside it": add_beside,
}
WITH_SCHEMA: dict[str, Tampering] = {"newer schema, hashes corrected": name_newer_schema}
WITH_FILES: dict[str, Tampering] = {"path out of the folder, hashes corrected": name_path_outside}


def list_cases(artifact: Path) -> Iterator[tuple[str, str, Tampering]]:
    """Every published file of an artifact, with every way to tamper with it and its name."""
    for name in list_files(artifact):
        if Path(name).parts[0] in NOT_PUBLISHED:
            continue
        content = json.loads((artifact / name).read_bytes()) if name.endswith(".json") else {}
        changes = dict(EVERY_FILE)
        if isinstance(content, dict) and isinstance(content.get("schema_version"), int):
            changes |= WITH_SCHEMA
            changes |= WITH_FILES if content.get("files") else {}
        for change, tampering in changes.items():
            yield name, change, tampering


def is_detected(artifact: Path, name: str, tampering: Tampering) -> bool:
    """Tampers with a file, and puts everything back.

    Args:
        artifact: A copy that may be changed.
        name: The file.
        tampering: What is done to it.

    Returns:
        Whether `verify` says that something is wrong.
    """
    folder = (artifact / name).parent
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    tampering(artifact / name)
    try:
        return not verify(artifact, run=False).passed
    finally:
        for file in [file for file in folder.iterdir() if file.is_symlink() or file.is_file()]:
            if file.is_symlink() or file not in before:
                file.unlink()
        for file, content in before.items():
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)


def _change_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a JSON file, and what SHA256SUMS says of it, as someone would who can compute hashes."""
    content = json.loads(file.read_bytes())
    change(content)
    file.write_text(json.dumps(content), "utf-8")
    sums = file.with_name(CHECKSUMS_NAME)
    listed = read_checksums(file.parent) or {}
    sums.write_text("".join(f"{hash_file(file.parent / name)}  {name}\n" for name in listed), "utf-8")


def _find_root(file: Path) -> Path:
    """The artifact's folder, which the file of other content is beside."""
    return next(parent for parent in file.parents if parent.with_name(OUTSIDE).exists())


@click.command(help=__doc__)
@click.argument("artifacts", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/reliability.md.")
def main(artifacts: tuple[Path, ...], print_only: bool) -> None:
    detected: dict[str, list[int]] = {}
    missed, num_files = [], 0
    with make_scratch_folder("tampering-") as scratch, progress_bars() as progress:
        (scratch / OUTSIDE).write_text("of other content")
        for artifact in artifacts:
            copy = Path(shutil.copytree(artifact, scratch / artifact.resolve().name))
            if problems := verify(copy, run=False).problems:
                raise click.ClickException(f"{artifact} is not intact: {problems[0]}.")
            cases = list(list_cases(copy))
            num_files += len({name for name, _, _ in cases})
            for number, (name, change, tampering) in enumerate(cases):
                progress(artifact.name, number, len(cases))
                is_case_detected = is_detected(copy, name, tampering)
                detected.setdefault(change, []).append(is_case_detected)
                if not is_case_detected:
                    missed.append(f"{artifact.name}/{name}: {change}")
            progress(artifact.name, len(cases), len(cases))
    rows = [[change, str(len(cases)), str(sum(cases))] for change, cases in detected.items()]
    names = " and ".join(f"`{artifact.resolve().name}`" for artifact in artifacts)
    introduction = (
        f"Each of the {num_files} published files of the demo's artifacts for {names} was changed in a copy, one at a "
        f"time, and `edgepress verify` run. Missed: {', '.join(missed) or 'none'}."
    )
    body = "\n\n".join(
        ["## Tampering", introduction, render_table(["what was done to a file", "cases", "found"], rows)]
    )
    if not print_only:
        write_section("tampering", f"make tampering ARTIFACTS='{' '.join(map(str, artifacts))}'", body)
    click.echo(body)
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
