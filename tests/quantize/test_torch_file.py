"""Values of tensors on disk, and disks that are full."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from edgepress.quantize.torch_file import save_torch_file

CONTENT = {"calls": [torch.arange(100_000), [torch.ones(3, dtype=torch.bfloat16)]]}
SIZE = 100_000 * 8


def test_values_are_read_back(tmp_path: Path) -> None:
    save_torch_file(CONTENT, tmp_path / "calls.pt")
    content = torch.load(tmp_path / "calls.pt", weights_only=True, mmap=True)
    assert torch.equal(content["calls"][0], CONTENT["calls"][0])
    assert content["calls"][1][0].dtype == torch.bfloat16


@pytest.mark.parametrize("limit", [0, 100, 5_000, SIZE // 2, SIZE + 100])
def test_a_full_disk_is_an_error_of_the_system(limit: int, tmp_path: Path) -> None:
    """Wherever in the file it is full."""
    file = tmp_path / "calls.pt"
    file.write_bytes(b"older")
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, previous[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_torch_file(CONTENT, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    assert [path.name for path in tmp_path.iterdir()] == ["calls.pt"]
    assert file.read_bytes() == b"older"
