"""How a budget was distributed, as the workspace stores it."""

from __future__ import annotations

from ...storage.files import read_json_object
from ...storage.manifest import AllocationRecord
from ..workspace import Workspace


def read_allocation(workspace: Workspace) -> AllocationRecord | None:
    """Reads which format each linear got; None if there was no budget."""
    file = workspace.allocation_file
    return AllocationRecord(**read_json_object(file)) if file.exists() else None
