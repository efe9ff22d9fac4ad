"""Links that leave a folder: only the cache of the Hugging Face Hub has them for a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .integrity import FileProblem, FileStatus, is_link_out

HUB_BLOBS, HUB_SNAPSHOTS = "blobs", "snapshots"


def find_links_out(folder: Path) -> Iterator[FileProblem]:
    """Finds the links in a folder that lead out of it, but for those of the Hub's cache. Hidden ones are left out.

    Args:
        folder: The folder, which may be reached through a link itself.

    Yields:
        A problem for each, also if what it leads to is what was published: that can be changed without a change here.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted([*folders, *names]):
            path = Path(parent) / name
            if name.startswith(".") or not path.is_symlink() or not is_link_out(folder, path) or is_hub_link(path):
                continue
            reason = (
                f"is a link to {os.path.realpath(path)}, out of the folder. Put what it leads to in its place, as "
                "'cp -rL' does"
            )
            yield FileProblem(path.relative_to(folder).as_posix(), FileStatus.LINK, reason)


def is_hub_link(path: Path) -> bool:
    """Whether a path leads from a snapshot in the cache of the Hub to one of the blobs of the same repository.

    The layout is REPOSITORY/snapshots/REVISION/… for the links and REPOSITORY/blobs/… for the files.
    """
    blobs = Path(os.path.realpath(path)).parent
    snapshots = blobs.with_name(HUB_SNAPSHOTS)
    return blobs.name == HUB_BLOBS and Path(os.path.realpath(path.parent)).is_relative_to(snapshots)
