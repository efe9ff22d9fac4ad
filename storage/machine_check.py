"""Checks on another machine that it is like this one: the same code, the same libraries, and the same files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..common.code_fingerprint import code_fingerprint
from .manifest import library_versions
from .snapshot import FolderSnapshot

SHARING_ADVICE = "Put it on a file system that all machines share, under the same path."


@dataclass(frozen=True)
class MachineCheck:
    """What this machine has. It is pickled, and called on another machine.

    Attributes:
        module: The module that the other machine runs.
        code: The fingerprint of its code.
        libraries: The versions of libraries.
        snapshots: The files of folders that are read.
        markers: A file in each folder that is written to.
    """

    module: str
    code: str
    libraries: dict[str, str]
    snapshots: tuple[FolderSnapshot, ...]
    markers: tuple[Path, ...]

    def __call__(self) -> str | None:
        """Returns how a machine differs and what to do, to follow its name; None if it does not."""
        if code_fingerprint(self.module) != self.code:
            return "has another version of edgepress. Install the version of this machine there."
        try:
            libraries = library_versions()
        except PackageNotFoundError as error:
            return f"lacks the package {error.name}. Install the version of this machine there."
        for name, version in self.libraries.items():
            if libraries[name] != version:
                return f"has {name} {libraries[name]} instead of {version}. Install the version of this machine there."
        for snapshot in self.snapshots:
            if FolderSnapshot.take(snapshot.folder) != snapshot:
                return f"does not see the files of {snapshot.folder}. {SHARING_ADVICE}"
        for marker in self.markers:
            if not marker.exists():
                return f"does not see the files of {marker.parent}. {SHARING_ADVICE}"
        return None


@contextmanager
def make_machine_check(module: str, read: Sequence[Path], written: Sequence[Path]) -> Iterator[MachineCheck]:
    """Makes a check that can be run until the end of the body.

    Args:
        module: The module that other machines run.
        read: Folders that they read.
        written: Folders that they also write to.
    """
    with ExitStack() as stack:
        markers = []
        for folder in written:
            folder.mkdir(parents=True, exist_ok=True)
            markers.append(Path(stack.enter_context(NamedTemporaryFile(dir=folder, prefix=".shared-")).name))
        snapshots = tuple(FolderSnapshot.take(folder) for folder in read)
        yield MachineCheck(module, code_fingerprint(module), library_versions(), snapshots, tuple(markers))
