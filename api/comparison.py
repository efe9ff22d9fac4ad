"""Compares two artifacts: their files, settings, versions, statuses and scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.arguments import check_arguments
from ..common.requirements import requires_extra
from ..storage.artifact_schema import ArtifactDescription
from ..storage.complete_artifact import require_complete
from ..storage.layout import Artifact
from .description import build_description

FILES_KEYS = ("files", "sha256", "bytes", "documents")  # compared file by file


@dataclass(frozen=True)
class ArtifactComparison:
    """What differs between two artifacts. `print` shows it.

    Attributes:
        added: Files that only the second one has.
        removed: Files that only the first one has.
        changed: Files whose contents differ.
        values: Other differences: the value in each, by dotted key; None where an artifact has no such key.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    values: Mapping[str, tuple[Any, Any]]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.values)

    def __str__(self) -> str:
        if self.is_equal:
            return "Equal: the same files, settings, versions and results."
        lines = [f"+ {path}" for path in self.added]
        lines += [f"- {path}" for path in self.removed]
        lines += [f"~ {path}" for path in self.changed]
        lines += [f"{key}: {_format(first)} -> {_format(second)}" for key, (first, second) in self.values.items()]
        return "\n".join(lines)


def _format(value: Any) -> str:
    """A value as JSON has it; what one artifact lacks is called none."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


@check_arguments
@requires_extra("runtime")
def diff(first: str | Path, second: str | Path) -> ArtifactComparison:
    """Compares two artifacts by what they record; no weight is read.

    Args:
        first: An artifact.
        second: Another artifact.

    Raises:
        UserError: One is no artifact, or what it records is corrupt.
    """
    artifacts = [Artifact(Path(path)) for path in (first, second)]
    descriptions = [build_description(artifact, has_plan=False) for artifact in artifacts]
    for artifact in artifacts:
        require_complete(artifact)
    before, after = (_list_hashes(description) for description in descriptions)
    old, new = (dict(_flatten(description.model_dump(mode="json"))) for description in descriptions)
    return ArtifactComparison(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(path for path in before.keys() & after.keys() if before[path] != after[path])),
        values={key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)},
    )


def _list_hashes(description: ArtifactDescription) -> dict[str, str]:
    return {file.path: file.sha256 for part in description.components.values() for file in part.files}


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys with plain values or lists."""
    for key, value in content.items():
        if key in FILES_KEYS:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
