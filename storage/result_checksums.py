"""SHA256SUMS of results and of settings of a machine, which are written again and again and not published.

What describes the published files does not list these. A list is removed before one of its files is written, and
written when all are: a command that is killed leaves files without a list, and none that contradicts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from .checksums import read_checksums, write_checksums
from .files import FileRecord, hash_file
from .layout import CHECKSUMS_NAME


@contextmanager
def record_results(names: Sequence[str], *folders: Path, list_name: str = CHECKSUMS_NAME) -> Iterator[None]:
    """Records the hashes of the files that are written meanwhile.

    Args:
        names: Names of the files. Those that are not there afterwards are not listed.
        folders: The folders that they are written to. Where a list of other files is, as the user's, nothing is listed.
        list_name: Name of the list.
    """
    recorded = [folder for folder in folders if _may_replace(folder, names, list_name)]
    for folder in recorded:
        (folder / list_name).unlink(missing_ok=True)
    yield
    for folder in recorded:
        files = [folder / name for name in names if (folder / name).is_file()]
        records = [FileRecord(path=file.name, bytes=file.stat().st_size, sha256=hash_file(file)) for file in files]
        if records:
            write_checksums(records, folder, list_name)


def _may_replace(folder: Path, names: Sequence[str], list_name: str) -> bool:
    try:
        listed = read_checksums(folder, list_name)
    except UserError:  # damaged, or another program's
        return False
    return listed is None or listed.keys() <= set(names)
